"""The tool call's state machine, state by state."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.api.v1alpha1.taskruntoolcall import ToolCallPhase
from kubechain_common.messages import ObjectRef, ToolResult
from kubechain_common.messages.tool import ToolImage
from kubechain_common.messages.trouble import Trouble
from kubechain_common.testing.builders import NOW, build_call, build_mcp_server, build_task
from kubechain_toolcall_controller.core.call_decision import decide_call, decide_kept, decide_refused
from kubechain_toolcall_controller.core.images import drop_images
from kubechain_toolcall_controller.core.plan import NOTHING, TASK_ASKED_AFTER, CallPlan, CallSnapshot
from kubechain_toolcall_controller.core.unreadable import build_unreadable_result

SERVER = build_mcp_server()
GUARDED = build_mcp_server(approvalContactChannel={"name": "approval-channel"})


def snapshot(call: TaskRunToolCall | None = None, **parts: Any) -> CallSnapshot:
    return CallSnapshot(call=call or build_call(), now=NOW, **{"server": SERVER, **parts})


def result(outcome: Any = "Succeeded", **fields: Any) -> ToolResult:
    return ToolResult(call=ObjectRef.of(build_call()), outcome=outcome, **fields)


def carried_out(call: TaskRunToolCall, plan: CallPlan) -> TaskRunToolCall:
    return call.model_copy(update={"status": plan.status}) if plan.status else call


def test_a_new_call_is_sent_without_a_write() -> None:
    plan = decide_call(snapshot())
    assert plan.status is None
    assert plan.request is not None
    assert (plan.request.tool, plan.request.arguments) == ("fetch", "{}")
    assert plan.request.requested_at == build_call().spec.requested_at


def test_a_slow_call_is_shown_as_running() -> None:
    early = decide_call(snapshot(sent_at=NOW - timedelta(seconds=0.25)))
    assert early == CallPlan(requeue_after=0.75)
    late = decide_call(snapshot(sent_at=NOW - timedelta(seconds=2)))
    assert late.status is not None
    assert (late.status.phase, late.status.status) == (ToolCallPhase.RUNNING, "Ready")
    running = carried_out(build_call(), late)
    assert decide_call(snapshot(running, sent_at=NOW - timedelta(seconds=2))) == NOTHING


def test_a_success_is_written_with_its_result() -> None:
    plan = decide_call(snapshot(sent_at=NOW, result=result(content="42")))
    assert plan.status is not None
    assert (plan.status.phase, plan.status.status, plan.status.result) == (ToolCallPhase.SUCCEEDED, "Succeeded", "42")
    assert plan.status.status_detail == "MCP tool executed successfully"
    assert plan.status.completion_time == NOW
    assert [(e.reason, e.message) for e in plan.events] == [
        ("ExecutionSucceeded", 'MCP tool "fetch__fetch" executed successfully')
    ]
    assert plan.consumed


def test_a_failure_is_written_with_its_reason() -> None:
    plan = decide_call(snapshot(result=result("Failed", error="no such page", reason="ToolError")))
    assert plan.status is not None
    assert (plan.status.phase, plan.status.status) == (ToolCallPhase.FAILED, "Error")
    assert (plan.status.error, plan.status.reason) == ("no such page", "ToolError")
    assert plan.status.status_detail == "MCP tool execution failed: no such page"
    assert [(e.type, e.reason) for e in plan.events] == [("Warning", "ExecutionFailed")]


def test_a_call_that_is_made_again_has_the_same_execution_key() -> None:
    first = decide_call(snapshot()).request
    again = build_call()
    again.metadata.uid = "another"
    second = decide_call(snapshot(again)).request
    assert first is not None
    assert second is not None
    assert first.call.uid != second.call.uid
    assert first.execution_key == second.execution_key


def test_a_result_that_the_api_server_refuses_fails_the_call() -> None:
    plan = decide_refused(snapshot(result=result(content="x")), "too large")
    assert plan.status is not None
    assert (plan.status.phase, plan.status.reason) == (ToolCallPhase.FAILED, "ResultRefused")


def test_a_result_that_can_not_be_read_fails_the_call() -> None:
    unreadable = build_unreadable_result("kubechain.tool.result.default.uid-1", "unknown version")
    plan = decide_call(snapshot(result=unreadable))
    assert plan.status is not None
    assert plan.status.reason == "OutcomeUnknown"


def test_an_unknown_tool_fails_with_a_sentence() -> None:
    plan = decide_call(snapshot(build_call(toolType=None, target=None, toolRef={"name": "nope"})))
    assert plan.status is not None
    assert plan.status.error == 'Unknown tool "nope": the agent has no tool of this name'


def test_a_missing_server_fails_the_call_and_a_lost_one_leaves_its_outcome_unknown() -> None:
    missing = decide_call(snapshot(server=None, server_asked=True))
    lost = decide_call(snapshot(server=None, server_asked=True, sent_at=NOW))
    assert missing.status is not None
    assert lost.status is not None
    assert missing.status.reason == "ServerNotFound"
    assert lost.status.reason == "OutcomeUnknown"


def test_nothing_is_said_of_a_server_that_the_cache_lacks_before_the_api_server_was_asked() -> None:
    assert decide_call(snapshot(server=None)) == CallPlan(ask_server=True)
    assert decide_call(snapshot(server=None, sent_at=NOW)) == CallPlan(ask_server=True)


def test_a_finished_call_stays_as_it_is() -> None:
    done = build_call(status={"phase": "Succeeded", "result": "42"})
    assert decide_call(snapshot(done, result=result("Failed", error="late"))) == CallPlan(consumed=True)


def test_a_call_that_was_sent_is_not_held_up_by_a_channel_that_its_server_gets_later() -> None:
    sent = snapshot(server=GUARDED, sent_at=NOW - timedelta(seconds=0.25))
    assert decide_call(sent) == CallPlan(requeue_after=0.75)
    late = decide_call(replace(sent, sent_at=NOW - timedelta(seconds=2)))
    assert late.status is not None
    assert late.status.phase == ToolCallPhase.RUNNING


# --- cancellation


def cancelled(**parts: Any) -> CallSnapshot:
    return snapshot(build_call(cancel=True), **parts)


def test_a_cancelled_call_is_stopped_before_anything_is_written() -> None:
    assert decide_call(cancelled(sent_at=NOW)) == CallPlan(stop=True)
    assert decide_call(cancelled(server=None)) == CallPlan(stop=True)


def test_a_call_that_is_approved_under_the_name_of_a_rejected_one_is_not_said_to_be_cancelled() -> None:
    approved = build_call(status={"phase": "Pending", "status": "Ready"}, decision={"approved": True})
    kept = result("Failed", reason="Cancelled", error="The call was cancelled before this host could start it.")
    assert decide_call(snapshot(approved, sent_at=NOW, result=kept)) == CallPlan(stop=True)
    plan = decide_call(snapshot(approved, sent_at=NOW, result=kept, stopped=True))
    assert plan.status is not None
    assert (plan.status.phase, plan.status.reason, plan.request) == (ToolCallPhase.FAILED, "Cancelled", None)
    assert plan.status.error == (
        "The call was cancelled, or an earlier one of its name was cancelled or rejected; it was not started"
    )


@pytest.mark.parametrize(
    ("stopped", "kind", "sentence"),
    [
        (True, "Normal", "The call was cancelled; it was not started"),
        (
            False,
            "Warning",
            "The call was cancelled; it had been started, or may have been: whether it took effect is unknown",
        ),
    ],
)
def test_a_cancelled_call_says_whether_it_had_been_started(stopped: bool, kind: str, sentence: str) -> None:
    plan = decide_call(cancelled(sent_at=NOW, stopped=stopped))
    assert plan.status is not None
    assert (plan.status.phase, plan.status.status, plan.status.reason) == (ToolCallPhase.FAILED, "Error", "Cancelled")
    assert plan.status.error == plan.status.status_detail == sentence
    assert plan.status.completion_time == NOW
    assert [(e.type, e.reason, e.message) for e in plan.events] == [(kind, "Cancelled", sentence)]


def test_a_result_that_came_before_the_cancellation_counts() -> None:
    plan = decide_call(cancelled(sent_at=NOW, result=result(content="42")))
    assert plan.status is not None
    assert plan.status.phase == ToolCallPhase.SUCCEEDED


@pytest.mark.parametrize("call", [build_call(), build_call(cancel=True)], ids=["not seen yet", "cancelled"])
def test_a_host_that_was_kept_from_a_call_ends_it_as_cancelled(call: TaskRunToolCall) -> None:
    refused = snapshot(call, sent_at=NOW, result=result("Failed", reason="Cancelled", error="kept from it"))
    assert decide_call(refused) == CallPlan(stop=True)
    plan = decide_call(replace(refused, stopped=True))
    assert plan.status is not None
    assert plan.consumed
    assert (plan.status.reason, plan.status.error) == ("Cancelled", "The call was cancelled; it was not started")


def test_a_cancelled_call_no_longer_waits_for_approval_and_a_late_decision_has_no_effect() -> None:
    waiting = carried_out(build_call(cancel=True), decide_call(snapshot(server=GUARDED)))
    plan = decide_call(snapshot(waiting, server=GUARDED, stopped=True))
    assert plan.status is not None
    assert plan.status.phase == ToolCallPhase.FAILED
    approved = carried_out(build_call(cancel=True, decision={"approved": True}), plan)
    assert decide_call(snapshot(approved, server=GUARDED)) == CallPlan(consumed=True)


def test_a_call_that_comes_late_is_not_sent_before_its_task_was_asked() -> None:
    late = NOW + timedelta(seconds=TASK_ASKED_AFTER + 1)
    unsent = CallSnapshot(call=build_call(), now=late, server=SERVER)
    assert decide_call(unsent) == CallPlan(ask_task=True)
    assert decide_call(replace(unsent, task_over=False)).request is not None
    over = replace(unsent, task_over=True)
    assert decide_call(over) == CallPlan(stop=True)
    status = decide_call(replace(over, stopped=True)).status
    assert status is not None
    assert (status.reason, status.error) == ("Cancelled", "The Task of this call has ended; it was not started")


def test_the_request_of_a_call_that_is_being_deleted_is_taken_back() -> None:
    call = build_call()
    call.metadata.deletion_timestamp = NOW
    assert decide_call(snapshot(call, sent_at=NOW)) == CallPlan(consumed=True, withdraw=True)


def test_trouble_with_the_bus_is_told_once() -> None:
    trouble = Trouble("MessageBusFull", "Message bus: NATS has no room")
    plan = decide_kept(build_call(), trouble)
    assert plan.status is not None
    assert plan.status.status_detail == trouble.detail
    assert [(e.type, e.reason) for e in plan.events] == [("Warning", "MessageBusFull")]
    assert decide_kept(carried_out(build_call(), plan), trouble) == NOTHING


# --- images


def owned_call() -> TaskRunToolCall:
    call = build_call()
    call.metadata.owner_references = [build_task().build_owner_reference()]
    return call


def test_images_are_stored_for_the_task_before_the_status_names_them() -> None:
    images = [ToolImage(mime_type="image/png", data="AAAA"), ToolImage(mime_type="image/jpeg", data="BBBB")]
    plan = decide_call(snapshot(owned_call(), result=result(content="[images]", images=images)))
    assert plan.status is not None
    assert [text.text for text in plan.stored] == ["AAAA", "BBBB"]
    named = [(i.mime_type, i.config_map_key_ref.name, i.config_map_key_ref.key) for i in plan.status.images]
    assert named == [("image/png", plan.stored[0].name, "image"), ("image/jpeg", plan.stored[1].name, "image")]
    assert plan.status.result == "[images]"


def test_the_same_image_is_stored_once() -> None:
    images = [ToolImage(mime_type="image/png", data="AAAA")] * 2
    plan = decide_call(snapshot(owned_call(), result=result(images=images)))
    assert plan.status is not None
    assert (len(plan.stored), len(plan.status.images)) == (1, 2)


def test_a_call_that_belongs_to_no_task_keeps_no_images() -> None:
    orphan = build_call()
    orphan.metadata.owner_references = []
    image = ToolImage(mime_type="image/png", data="AAAA")
    plan = decide_call(snapshot(orphan, result=result(content="[image]", images=[image])))
    assert plan.status is not None
    assert (plan.stored, plan.status.images, plan.status.result) == ((), [], "[image]")


def test_the_model_reads_that_images_were_lost() -> None:
    image = ToolImage(mime_type="image/png", data="AAAA")
    lost = drop_images(result(content="[image]", images=[image]), "quota exceeded")
    plan = decide_call(snapshot(owned_call(), result=lost))
    assert plan.status is not None
    assert (plan.stored, plan.status.images) == ((), [])
    assert plan.status.result == "[image]\n[images were lost: quota exceeded]"
