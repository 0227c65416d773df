"""Calls of which it has to be told whether they may have begun."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

from kubechain_common.messages import ToolResult
from kubechain_common.messages.human import HumanResult
from kubechain_common.messaging.started_calls import StartedCalls
from kubechain_common.runtime.inbox import Inbox
from kubechain_common.testing.builders import NOW, build_call, build_mcp_server
from kubechain_toolcall_controller.core.call_decision import decide_call
from kubechain_toolcall_controller.core.plan import CallSnapshot
from kubechain_toolcall_controller.human_requests import HumanRequests
from kubechain_toolcall_controller.toolcall_reconciler import ToolCallReconciler
from kubechain_toolcall_controller.watched import Watched

GUARDED = build_mcp_server(approvalContactChannel={"name": "approval-channel"})
RUNNING = {"phase": "Running", "status": "Ready", "startTime": "2026-11-23T11:59:00Z"}


def test_a_running_call_that_a_new_controller_finds_without_its_server_may_have_taken_effect() -> None:
    plan = decide_call(CallSnapshot(call=build_call(status=RUNNING), now=NOW, server=None, server_asked=True))
    assert plan.status is not None
    assert plan.status.reason == "OutcomeUnknown"


def test_an_approved_call_counts_as_made_when_it_was_approved() -> None:
    """The record of started calls may have been lost while its person thought: it has not begun for all that."""
    waiting = {"phase": "Pending", "status": "AwaitingHumanApproval", "startTime": "2026-11-23T10:00:00Z"}
    call = build_call(status=waiting, decision={"approved": True})
    plan = decide_call(CallSnapshot(call=call, now=NOW, server=GUARDED))
    assert plan.status is not None
    assert plan.status.start_time == NOW
    approved = call.model_copy(update={"status": plan.status})
    run = decide_call(CallSnapshot(call=approved, now=NOW + timedelta(seconds=1), server=GUARDED))
    assert run.request is not None
    assert run.request.requested_at == NOW


class Dispatcher:
    async def withdraw(self, unit: str, *subjects: str) -> None: ...


async def _nothing(*_: object, **__: object) -> None: ...


async def test_only_a_call_that_was_never_sent_is_known_not_to_have_begun_when_the_record_is_younger() -> None:
    async def stream_info(_: str) -> Any:
        return SimpleNamespace(created=NOW)

    js = SimpleNamespace(publish=_nothing, stream_info=stream_info)
    unused = cast("Any", None)
    dispatcher = cast("Any", Dispatcher())
    inbox: Inbox[ToolResult] = Inbox(lambda result: result.call, lambda ref: None)
    reports: Inbox[HumanResult] = Inbox(lambda report: report.call, lambda ref: None)
    reconciler = ToolCallReconciler(
        unused,
        Watched.build(unused, ""),
        dispatcher,
        StartedCalls(js, _nothing, _nothing),
        inbox,
        HumanRequests(dispatcher, reports),
        unused,
    )
    waiting = {"phase": "Pending", "status": "AwaitingHumanApproval"}
    assert not await reconciler._stop(build_call())
    assert not await reconciler._stop(build_call(decision={"approved": True}))
    assert await reconciler._stop(build_call(status=waiting))
    assert await reconciler._stop(build_call(decision={"approved": False}))
