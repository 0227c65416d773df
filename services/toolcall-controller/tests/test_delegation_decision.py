"""A call that delegates, state by state."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.names import sub_task_name
from kubechain_common.api.v1alpha1 import Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.api.v1alpha1.taskruntoolcall import ToolCallPhase
from kubechain_common.testing.builders import NOW, build_call, build_task
from kubechain_toolcall_controller.core.call_decision import decide_call
from kubechain_toolcall_controller.core.delegation import LOOK_AGAIN_AFTER
from kubechain_toolcall_controller.core.plan import NOTHING, TASK_ASKED_AFTER, CallPlan, CallSnapshot
from kubechain_toolcall_controller.core.sub_task import SubTask, read_message

SPAN = SpanContext(trace_id="a" * 32, span_id="b" * 16)
AWAITING = {"phase": "Pending", "status": "AwaitingSubAgent", "statusDetail": "Delegating to sub-agent"}


def delegating(*, status: dict[str, Any] | None = None, **spec: Any) -> TaskRunToolCall:
    full = {
        "toolType": "DelegateToAgent",
        "target": {"name": "helper"},
        "toolRef": {"name": "delegate_to_agent__helper"},
        "arguments": '{"message": "Help!"}',
        "delegation": {"depth": 1, "maxDepth": 5},
        **spec,
    }
    return build_call(status=status, **full)


def child_of(call: TaskRunToolCall, **status: Any) -> Task:
    return build_task(
        sub_task_name(call.name, "helper"),
        status=status,
        metadata={"ownerReferences": [call.build_owner_reference().to_wire()]},
    )


def snapshot(call: TaskRunToolCall | None = None, **parts: Any) -> CallSnapshot:
    return CallSnapshot(call=call or delegating(), now=NOW, new_span=SPAN, **parts)


def awaiting(child: Task | None = None, *, asked: bool = False, **parts: Any) -> CallSnapshot:
    return snapshot(delegating(status=AWAITING, **parts.pop("spec", {})), sub_task=SubTask(child, asked), **parts)


def written(plan: CallPlan) -> tuple[str, str | None, str, str]:
    assert plan.status is not None
    return plan.status.phase, plan.status.status, plan.status.reason, plan.status.status_detail


def told(plan: CallPlan) -> list[tuple[str, str, str]]:
    return [(event.type, event.reason, event.message) for event in plan.events]


# --- the beginning ---


def test_the_task_is_created_before_the_call_says_so() -> None:
    call = delegating()
    plan = decide_call(snapshot(call))
    assert plan.status is None
    task = plan.delegate
    assert task is not None
    assert task.key == (call.namespace, f"{call.name}-helper")
    assert [owner.uid for owner in task.metadata.owner_references] == [call.uid]
    assert task.metadata.labels == {
        "kubechain.humanlayer.dev/parent-toolcall": call.name,
        "kubechain.humanlayer.dev/parent-toolcall-uid": call.uid,
    }
    assert (task.spec.agent_ref.name, task.spec.user_message) == ("helper", "Help!")
    assert task.spec.active_deadline_seconds is None
    assert task.spec.delegated_from is not None
    assert (task.spec.delegated_from.depth, task.spec.delegated_from.span_context) == (1, SPAN)
    assert task.spec.delegated_from.tool_call_ref.name == call.name


def test_once_it_is_created_the_call_says_so() -> None:
    call = delegating()
    plan = decide_call(snapshot(call, sub_task=SubTask(child_of(call), asked=True)))
    assert written(plan) == ("Pending", "AwaitingSubAgent", "", "Delegating to sub-agent")
    assert told(plan) == [("Normal", "DelegatingToSubAgent", 'Delegating to sub-agent "helper"')]
    assert plan.requeue_after is None


@pytest.mark.parametrize(
    ("left", "seconds"), [(60.0, 60), (0.4, 1), (1.2, 2), (0.0, 1), (-5.0, 1), (10_000_000.0, 10_000_000)]
)
def test_a_deadline_is_handed_down(left: float, seconds: int) -> None:
    deadline = (NOW + timedelta(seconds=left)).isoformat()
    task = decide_call(snapshot(delegating(delegation={"depth": 2, "maxDepth": 5, "deadline": deadline}))).delegate
    assert task is not None
    assert task.spec.active_deadline_seconds == seconds


@pytest.mark.parametrize(
    "arguments",
    ["", "nonsense", "[]", "7", '{"message": 7}', '{"message": ""}', '{"message": " \\n"}', "{}", "[" * 9999],
)
def test_arguments_without_a_message_fail(arguments: str) -> None:
    plan = decide_call(snapshot(delegating(arguments=arguments)))
    assert plan.delegate is None
    assert written(plan)[:3] == ("Failed", "Error", "InvalidArguments")
    assert plan.status is not None
    assert plan.status.error == (
        'To delegate to agent "helper" the arguments have to be {"message": "..."} with a text in it'
    )
    assert [event.reason for event in plan.events] == ["SubAgentFailed"]


@given(st.text())
def test_whatever_the_arguments_are_the_message_is_a_text_or_none(arguments: str) -> None:
    message = read_message(arguments)
    assert message is None or message.strip()


def test_half_a_surrogate_is_no_text() -> None:
    assert read_message('{"message": "a \\ud800 b"}') == "a ? b"


@pytest.mark.parametrize(("depth", "limit", "allowed"), [(1, 0, False), (1, 1, True), (5, 5, True), (6, 5, False)])
def test_delegation_ends_at_its_limit(depth: int, limit: int, allowed: bool) -> None:
    plan = decide_call(snapshot(delegating(delegation={"depth": depth, "maxDepth": limit})))
    assert (plan.delegate is not None) == allowed
    if not allowed:
        assert written(plan)[:3] == ("Failed", "Error", "DelegationTooDeep")
        assert plan.status is not None
        assert 'Agent "helper" was not asked' in plan.status.error
        assert f"the limit is {limit} (maxDelegationDepth" in plan.status.error


def test_a_call_that_nobody_counted_is_the_first() -> None:
    task = decide_call(snapshot(delegating(delegation=None))).delegate
    assert task is not None
    assert task.spec.delegated_from is not None
    assert task.spec.delegated_from.depth == 1


def test_what_was_begun_by_an_earlier_call_is_not_begun_again() -> None:
    plan = decide_call(snapshot(sub_task=SubTask(begun_before=True)))
    assert plan.delegate is None
    assert written(plan)[:3] == ("Failed", "Error", "OutcomeUnknown")
    assert plan.status is not None
    assert plan.status.error.startswith("A call of this name was delegated")


def test_a_task_that_is_refused_fails_the_call() -> None:
    plan = decide_call(snapshot(sub_task=SubTask(refused="exceeded quota")))
    assert written(plan) == (
        "Failed",
        "Error",
        "SubAgentTaskRefused",
        'Delegation failed: The Task for sub-agent "helper" was refused: exceeded quota',
    )


def test_a_late_call_is_not_begun_without_a_look_at_its_task() -> None:
    late = replace(snapshot(), now=NOW + timedelta(seconds=TASK_ASKED_AFTER))
    assert decide_call(late) == CallPlan(ask_task=True)
    assert decide_call(replace(late, task_over=False)).delegate is not None
    over = replace(late, task_over=True)
    assert decide_call(over) == CallPlan(stop=True)
    assert decide_call(replace(over, stopped=True)) == CallPlan(ask_sub_task=True)
    plan = decide_call(replace(over, stopped=True, sub_task=SubTask(asked=True)))
    assert told(plan) == [("Normal", "Cancelled", "The Task of this call has ended; it was not started")]


# --- while the sub-agent works ---


def test_a_call_waits_in_silence() -> None:
    call = delegating(status=AWAITING)
    assert decide_call(awaiting(child_of(call))) == NOTHING
    assert decide_call(awaiting(child_of(call, phase="SendContextWindowToLLM", status="Ready"))) == NOTHING


def test_what_the_sub_agent_waits_for_is_shown_once_and_then_taken_back() -> None:
    child = child_of(delegating(), phase="Pending", status="Pending", statusDetail="Waiting for Agent to exist")
    plan = decide_call(awaiting(child))
    assert written(plan)[3] == "Delegating to sub-agent: Waiting for Agent to exist"
    assert plan.events == ()
    shown = delegating().model_copy(update={"status": plan.status})
    assert decide_call(snapshot(shown, sub_task=SubTask(child))) == NOTHING
    on_its_way = child_of(delegating(), phase="SendContextWindowToLLM", status="Ready", statusDetail="Sending")
    back = decide_call(snapshot(shown, sub_task=SubTask(on_its_way)))
    assert written(back)[3] == "Delegating to sub-agent"


def test_a_missing_task_is_asked_for_before_it_is_believed() -> None:
    assert decide_call(awaiting()) == CallPlan(ask_sub_task=True)
    found = decide_call(awaiting(child_of(delegating()), asked=True))
    assert found == CallPlan(requeue_after=LOOK_AGAIN_AFTER)
    gone = decide_call(awaiting(asked=True))
    assert written(gone)[:3] == ("Failed", "Error", "SubAgentTaskDeleted")
    assert gone.status is not None
    assert gone.status.error.startswith('The Task of sub-agent "helper" was deleted before it ended')


def test_a_task_that_is_gone_before_the_call_said_that_it_waits_is_not_made_again() -> None:
    plan = decide_call(snapshot(sub_task=SubTask(asked=True)))
    assert plan.delegate is None
    assert written(plan)[2] == "SubAgentTaskDeleted"


# --- the end ---


def test_the_whole_answer_is_asked_for_and_is_the_result() -> None:
    thin = child_of(delegating(), phase="FinalAnswer")
    assert decide_call(awaiting(thin)) == CallPlan(ask_sub_task=True)
    plan = decide_call(awaiting(child_of(delegating(), phase="FinalAnswer", output="42"), asked=True))
    assert written(plan) == ("Succeeded", "Succeeded", "Succeeded", "Sub-agent completed successfully")
    assert plan.status is not None
    assert (plan.status.result, plan.status.completion_time) == ("42", NOW)
    assert told(plan) == [("Normal", "SubAgentCompleted", "Sub-agent completed successfully")]


def test_an_answer_that_is_not_whole_is_told() -> None:
    condition = {"type": "Complete", "status": "True", "reason": "FinalAnswerIncomplete", "lastTransitionTime": NOW}
    cut = child_of(
        delegating(), phase="FinalAnswer", output="4", statusDetail="Answered, but cut", conditions=[condition]
    )
    plan = decide_call(awaiting(cut, asked=True))
    assert written(plan)[3] == "Sub-agent completed: Answered, but cut"


@pytest.mark.parametrize(
    ("status", "error"),
    [({"error": "no key"}, "no key"), ({"statusDetail": "bad"}, "bad"), ({}, "no reason given")],
)
def test_the_failure_of_the_sub_agent_is_the_calls(status: dict[str, str], error: str) -> None:
    plan = decide_call(awaiting(child_of(delegating(), phase="Failed", **status), asked=True))
    assert written(plan) == ("Failed", "Error", "SubAgentFailed", f"Sub-agent task failed: {error}")
    assert plan.status is not None
    assert plan.status.error == error
    assert told(plan) == [("Warning", "SubAgentFailed", f"Sub-agent task failed: {error}")]


def test_an_ended_call_stays_as_it_is_and_one_that_is_being_deleted_begins_nothing() -> None:
    ended = delegating(status={"phase": "Failed"})
    assert decide_call(snapshot(ended)) == CallPlan(consumed=True)
    leaving = delegating()
    leaving.metadata.deletion_timestamp = NOW
    assert decide_call(snapshot(leaving)) == CallPlan(consumed=True, withdraw=True)
    leaving = delegating(status=AWAITING)
    leaving.metadata.deletion_timestamp = NOW
    assert decide_call(snapshot(leaving, sub_task=SubTask(asked=True))).status is None


# --- cancelling ---


CANCELLED = {"cancel": True}


def test_cancelling_first_makes_sure_that_nothing_begins() -> None:
    cancelled = snapshot(delegating(cancel=True))
    assert decide_call(cancelled) == CallPlan(stop=True)
    assert decide_call(replace(cancelled, stopped=True)) == CallPlan(ask_sub_task=True)


@pytest.mark.parametrize(
    ("stopped", "kind", "words"),
    [
        (True, "Normal", "it was not started"),
        (False, "Warning", "it had been started, or may have been: whether it took effect is unknown"),
    ],
)
def test_a_cancelled_call_without_a_task_ends(stopped: bool, kind: str, words: str) -> None:
    plan = decide_call(snapshot(delegating(cancel=True), stopped=stopped, sub_task=SubTask(asked=True)))
    assert written(plan)[:3] == ("Failed", "Error", "Cancelled")
    assert told(plan) == [(kind, "Cancelled", f"The call was cancelled; {words}")]
    assert not plan.cancel_sub_task


def test_cancelling_goes_down_before_the_call_ends() -> None:
    child = child_of(delegating())
    plan = decide_call(awaiting(child, spec=CANCELLED, stopped=False))
    assert plan.cancel_sub_task
    assert written(plan)[:3] == ("Failed", "Error", "Cancelled")
    words = (
        f'The call was cancelled, and with it Task "{child.name}" of the sub-agent: what that had done by then stays'
    )
    assert told(plan) == [("Normal", "Cancelled", words)]
    child.spec.cancel = True
    assert not decide_call(awaiting(child, spec=CANCELLED, stopped=False)).cancel_sub_task


def test_an_answer_that_came_first_counts() -> None:
    child = child_of(delegating(), phase="FinalAnswer", output="42")
    plan = decide_call(awaiting(child, asked=True, spec=CANCELLED))
    assert plan.status is not None
    assert plan.status.phase == ToolCallPhase.SUCCEEDED


def test_a_call_that_was_forbidden_to_begin_ends_at_once() -> None:
    plan = decide_call(snapshot(sub_task=SubTask(forbidden=True)))
    assert told(plan) == [("Normal", "Cancelled", "The call was cancelled; it was not started")]
