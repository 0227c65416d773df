"""What the tool call's reconciler remembers between its steps."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest

from kubechain_common.api.v1alpha1 import MCPServer, Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.api.v1alpha1.taskruntoolcall import ANSWERED, ToolCallPhase
from kubechain_common.kube.errors import NotFoundError
from kubechain_common.messages import ToolResult
from kubechain_common.messages.human import HumanResult
from kubechain_common.messaging.errors import BusUnavailableError
from kubechain_common.runtime.clock import now
from kubechain_common.runtime.inbox import Inbox
from kubechain_common.testing.builders import build_call, build_contact_channel, build_mcp_server, build_task
from kubechain_toolcall_controller.human_requests import HumanRequests
from kubechain_toolcall_controller.toolcall_reconciler import ToolCallReconciler
from kubechain_toolcall_controller.watched import Watched


class Dispatcher:
    """Hears of another deletion, once, while it takes the first request back."""

    def __init__(self) -> None:
        self.meanwhile: Any = None
        self.withdrawn: list[str] = []
        self.published: list[str] = []
        self.away = False

    async def withdraw(self, unit: str, *subjects: str) -> None:
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        if self.away:
            raise BusUnavailableError("down")
        self.withdrawn.append(unit)

    async def publish(self, unit: str, message: Any, **how: Any) -> None:
        self.published.append(unit)

    def subject_of(self, unit: str) -> str | None:
        return None

    def forget(self, unit: str) -> None:
        pass


class Cluster:
    """The API server with one running Task, the record in which every call has begun, and no reader of Events."""

    def __init__(self, server: MCPServer | None = None) -> None:
        self.told: list[str] = []
        self.server = server

    async def get(self, kind: type[Resource], namespace: str, name: str) -> Resource:
        if kind is Task:
            return build_task(name)
        assert kind is MCPServer
        if self.server is None:
            raise NotFoundError("gone")
        return self.server

    async def update_status(self, obj: TaskRunToolCall, status: dict[str, Any]) -> TaskRunToolCall:
        version = str(int(obj.metadata.resource_version) + 1)
        metadata = {**obj.metadata.to_wire(), "resourceVersion": version}
        return TaskRunToolCall.model_validate({**obj.to_wire(), "metadata": metadata, "status": status})

    async def forbid(self, key: str) -> bool:
        return False

    def event(self, obj: Any, kind: str, reason: str, message: str) -> None:
        self.told.append(reason)


def build_reconciler(
    dispatcher: Dispatcher, watched: Watched | None = None, cluster: Cluster | None = None
) -> ToolCallReconciler:
    watched = watched or Watched.build(cast("Any", None), "")
    inbox: Inbox[ToolResult] = Inbox(lambda result: result.call, lambda ref: None)
    reports: Inbox[HumanResult] = Inbox(lambda report: report.call, lambda ref: None)
    people = HumanRequests(cast("Any", dispatcher), reports)
    server = cast("Any", cluster)
    return ToolCallReconciler(server, watched, cast("Any", dispatcher), server, inbox, people, server)


async def test_a_deletion_that_is_heard_of_while_another_is_dealt_with_is_not_lost() -> None:
    first, second = build_call(), build_call()
    second.metadata.uid = "uid-second"
    dispatcher = Dispatcher()
    reconciler = build_reconciler(dispatcher)
    reconciler.handle_deleted(first)
    dispatcher.meanwhile = lambda: reconciler.handle_deleted(second)
    await reconciler.reconcile(first.key)
    assert dispatcher.withdrawn == [first.uid, second.uid]


async def test_a_deletion_is_kept_until_its_request_was_taken_back() -> None:
    deleted = build_call()
    dispatcher = Dispatcher()
    reconciler = build_reconciler(dispatcher)
    reconciler.handle_deleted(deleted)
    dispatcher.away = True
    with pytest.raises(BusUnavailableError):
        await reconciler.reconcile(deleted.key)
    dispatcher.away = False
    for _ in range(2):
        await reconciler.reconcile(deleted.key)
    assert dispatcher.withdrawn == [deleted.uid]


@pytest.mark.parametrize("age", [0.0, 60.0], ids=["young", "old"])
async def test_a_rejected_call_whose_name_had_begun_ends_in_one_step_and_is_not_sent(age: float) -> None:
    watched, cluster, dispatcher = Watched.build(cast("Any", None), ""), Cluster(), Dispatcher()
    watched.servers.observe(build_mcp_server(approvalContactChannel={"name": "approval-channel"}))
    watched.channels.observe(build_contact_channel())
    asked_at = (now() - timedelta(seconds=age)).isoformat()
    call = build_call(
        status={"phase": "Pending", "status": "AwaitingHumanApproval", "startTime": "2026-11-23T12:00:00Z"},
        decision={"approved": False, "comment": "not on a Friday"},
        requestedAt=asked_at,
    )
    watched.calls.observe(call)
    await build_reconciler(dispatcher, watched, cluster).reconcile(call.key)
    ended = watched.calls.get(*call.key)
    assert ended is not None
    assert (ended.status.phase, ended.status.reason) == (ToolCallPhase.FAILED, "OutcomeUnknown")
    assert any(c.type == ANSWERED and c.reason == "Rejected" for c in ended.status.conditions)
    assert (dispatcher.published, cluster.told) == ([], ["ToolCallRejected"])


@pytest.mark.parametrize("exists", [True, False])
async def test_the_api_server_is_asked_for_a_server_that_our_cache_lacks(exists: bool) -> None:
    watched, dispatcher = Watched.build(cast("Any", None), ""), Dispatcher()
    cluster = Cluster(build_mcp_server() if exists else None)
    call = build_call(requestedAt=now().isoformat())
    watched.calls.observe(call)
    await build_reconciler(dispatcher, watched, cluster).reconcile(call.key)
    seen = watched.calls.get(*call.key)
    assert seen is not None
    assert (seen.status.reason, dispatcher.published) == (("", [call.uid]) if exists else ("ServerNotFound", []))


async def test_a_server_that_our_cache_lacks_guards_its_calls_all_the_same() -> None:
    watched, dispatcher = Watched.build(cast("Any", None), ""), Dispatcher()
    watched.channels.observe(build_contact_channel())
    call = build_call(requestedAt=now().isoformat())
    watched.calls.observe(call)
    cluster = Cluster(build_mcp_server(approvalContactChannel={"name": "approval-channel"}))
    await build_reconciler(dispatcher, watched, cluster).reconcile(call.key)
    seen = watched.calls.get(*call.key)
    assert seen is not None
    assert seen.status.status_detail == "Waiting for human approval via contact channel approval-channel"
