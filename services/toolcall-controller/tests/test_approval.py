"""Which calls need approval, how they wait for it, and what a decision makes of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import pytest

from kubechain_common.api.names import external_call_id, external_run_id
from kubechain_common.api.v1alpha1 import MCPServer, TaskRunToolCall
from kubechain_common.api.v1alpha1.status import Condition
from kubechain_common.api.v1alpha1.taskruntoolcall import ANSWERED, HUMAN_ASKED, TaskRunToolCallStatus, ToolCallPhase
from kubechain_common.messages import ObjectRef, ToolResult
from kubechain_common.messages.human import HumanResult
from kubechain_common.messages.trouble import Trouble
from kubechain_common.testing.builders import NOW, build_call, build_contact_channel, build_mcp_server
from kubechain_toolcall_controller.core.approval import needs_approval
from kubechain_toolcall_controller.core.call_decision import decide_call, decide_kept
from kubechain_toolcall_controller.core.plan import NOTHING, TASK_ASKED_AFTER, CallPlan, CallSnapshot
from kubechain_toolcall_controller.core.unreadable import build_unreadable_report

NAMED = {"name": "approval-channel"}
GUARDED = build_mcp_server(approvalContactChannel=NAMED)
CHANNEL = build_contact_channel()
SENTENCE = "Waiting for human approval via contact channel approval-channel"
TASK_UID = "uid-hello"
TOO_LATE = "The call was rejected; it had been started, or may have been: whether it took effect is unknown"


def snapshot(call: TaskRunToolCall | None = None, **parts: Any) -> CallSnapshot:
    return CallSnapshot(call=call or build_call(), now=NOW, **{"server": GUARDED, "channel": CHANNEL, **parts})


def after(call: TaskRunToolCall, plan: CallPlan) -> TaskRunToolCall:
    return call.model_copy(update={"status": plan.status}) if plan.status else call


def with_spec(call: TaskRunToolCall, **spec: Any) -> TaskRunToolCall:
    return call.model_copy(update={"spec": build_call(**spec).spec})


def waiting(**spec: Any) -> TaskRunToolCall:
    return with_spec(after(build_call(), decide_call(snapshot())), **spec)


def report(outcome: Any = "Sent", **fields: Any) -> HumanResult:
    return HumanResult(call=ObjectRef.of(build_call()), outcome=outcome, **fields)


def asked(**spec: Any) -> TaskRunToolCall:
    sent = report(reason="HumanLayerRequestSent", message="HumanLayer request sent", sent_at=NOW)
    return with_spec(after(waiting(), decide_call(snapshot(waiting(), asked=sent))), **spec)


def status_of(plan: CallPlan) -> TaskRunToolCallStatus:
    assert plan.status is not None
    return plan.status


def condition_of(plan: CallPlan, kind: str) -> Condition:
    return next(c for c in status_of(plan).conditions if c.type == kind)


def told(plan: CallPlan) -> list[tuple[str, str, str]]:
    return [(e.type, e.reason, e.message) for e in plan.events]


# --- the policy


def guarded(annotations: Any = None, *, connected: bool = True, generation: int = 1, **approval: Any) -> MCPServer:
    server = build_mcp_server(connected=connected, approvalContactChannel=NAMED, approval=approval)
    tools = [{"name": "fetch", "annotations": annotations}]
    status = server.status.model_validate({**server.status.to_wire(), "tools": tools})
    metadata = server.metadata.model_copy(update={"generation": generation})
    return server.model_copy(update={"status": status, "metadata": metadata})


def test_a_server_without_a_channel_asks_nobody() -> None:
    assert not needs_approval(build_mcp_server(), "fetch")


def test_every_tool_of_a_server_with_a_channel_needs_approval() -> None:
    assert needs_approval(GUARDED, "fetch")
    assert needs_approval(GUARDED, "never heard of")
    assert needs_approval(GUARDED, None)


@pytest.mark.parametrize(
    ("tools", "tool", "needed"),
    [
        (None, "fetch", True),
        ([], "fetch", False),
        (["fetch"], "fetch", True),
        (["other"], "fetch", False),
        (["fetch", "other"], "other", True),
        (["fetch"], "Fetch", False),
        ([], None, True),
    ],
)
def test_only_the_tools_that_are_listed_need_approval(tools: Any, tool: Any, needed: bool) -> None:
    assert needs_approval(guarded(tools=tools), tool) is needed


@pytest.mark.parametrize(
    ("annotations", "passes"),
    [
        ({"readOnlyHint": True}, True),
        ({"readOnlyHint": True, "destructiveHint": True}, True),
        ({"readOnlyHint": False}, False),
        ({"idempotentHint": True}, False),
        ({}, False),
        (None, False),
    ],
)
def test_only_a_tool_that_says_so_counts_as_read_only(annotations: Any, passes: bool) -> None:
    assert needs_approval(guarded(annotations, skipReadOnly=True), "fetch") is not passes
    assert needs_approval(guarded(annotations, skipReadOnly=True), "unknown")
    assert needs_approval(guarded(annotations, skipReadOnly=False), "fetch")
    assert needs_approval(guarded(annotations), "fetch")


@pytest.mark.parametrize(("connected", "generation"), [(False, 1), (True, 2), (False, 2)])
def test_what_a_server_said_before_it_was_changed_or_lost_does_not_count(connected: bool, generation: int) -> None:
    server = guarded({"readOnlyHint": True}, connected=connected, generation=generation, skipReadOnly=True)
    assert needs_approval(server, "fetch")


def test_two_tools_of_one_name_are_read_only_only_if_both_are() -> None:
    server = guarded({"readOnlyHint": True}, skipReadOnly=True)
    twice = [*server.status.tools, server.status.tools[0].model_copy(update={"annotations": None})]
    doubtful = server.model_copy(update={"status": server.status.model_copy(update={"tools": twice})})
    assert needs_approval(doubtful, "fetch")


def test_a_list_and_the_annotation_both_have_to_ask_for_approval() -> None:
    for listed, read_only in product([True, False], repeat=2):
        tools = ["fetch"] if listed else ["other"]
        server = guarded({"readOnlyHint": read_only}, tools=tools, skipReadOnly=True)
        assert needs_approval(server, "fetch") is (listed and not read_only)


def test_a_tool_that_needs_no_approval_runs_at_once() -> None:
    plan = decide_call(snapshot(server=guarded({"readOnlyHint": True}, skipReadOnly=True)))
    assert plan.status is None
    assert plan.request is not None


# --- waiting


def test_a_guarded_call_waits_as_the_tutorial_shows_and_a_person_is_asked() -> None:
    plan = decide_call(snapshot())
    status = status_of(plan)
    assert plan.request is None
    assert (status.phase, status.status, status.status_detail) == (
        ToolCallPhase.PENDING,
        "AwaitingHumanApproval",
        SENTENCE,
    )
    assert (status.start_time, status.conditions) == (NOW, [])
    assert status.external_call_id == external_call_id("default", build_call().name, build_call().uid)
    message = "Tool execution requires approval via contact channel approval-channel"
    assert told(plan) == [("Normal", "AwaitingHumanApproval", message)]
    question = plan.question
    assert question is not None
    assert (question.kind, question.call.uid, question.channel.uid) == ("Approval", build_call().uid, CHANNEL.uid)
    assert (question.external_call_id, question.run_id) == (status.external_call_id, external_run_id(TASK_UID))
    assert question.requested_at == NOW


def test_the_request_is_the_same_one_until_somebody_has_been_asked() -> None:
    plan = decide_call(replace(snapshot(waiting()), now=NOW + timedelta(days=3)))
    assert plan == CallPlan(question=decide_call(snapshot()).question)


def test_a_call_whose_person_was_asked_just_waits() -> None:
    assert decide_call(snapshot(asked())) == NOTHING


def test_the_report_that_the_request_was_sent_is_written_down() -> None:
    plan = decide_call(
        snapshot(waiting(), asked=report(reason="HumanLayerRequestSent", message="HumanLayer request sent"))
    )
    assert told(plan) == [("Normal", "HumanLayerRequestSent", "HumanLayer request sent")]
    condition = condition_of(plan, HUMAN_ASKED)
    assert (condition.status, condition.reason, condition.message) == (
        "True",
        "HumanLayerRequestSent",
        "HumanLayer request sent",
    )
    assert status_of(plan).status_detail == SENTENCE
    assert (plan.noted, plan.question, plan.withdraw_question) == (True, None, False)


def test_a_report_without_words_gets_some() -> None:
    plan = decide_call(snapshot(waiting(), asked=report()))
    assert told(plan) == [("Normal", "HumanRequestSent", "Human request sent")]


@pytest.mark.parametrize("late", [report(), report("Retrying", message="slow"), report("Dropped")])
def test_a_report_that_comes_again_changes_nothing(late: HumanResult) -> None:
    assert decide_call(snapshot(asked(), asked=late)) == CallPlan(noted=True)


def test_a_report_about_a_call_that_does_not_wait_yet_is_kept() -> None:
    assert not decide_call(snapshot(asked=report())).noted
    assert decide_call(snapshot(build_call(status={"phase": "Succeeded", "status": "Succeeded"}), asked=report())).noted


def test_trouble_stands_behind_the_sentence_and_is_told_once() -> None:
    down = report("Retrying", reason="HumanLayerRequestFailed", message="HumanLayer answered 503", attempt=1)
    plan = decide_call(snapshot(waiting(), asked=down))
    assert status_of(plan).status_detail == f"{SENTENCE}. HumanLayer answered 503"
    assert told(plan) == [("Warning", "HumanLayerRequestFailed", "HumanLayer answered 503")]
    assert plan.noted
    assert plan.question is not None
    troubled = after(waiting(), plan)
    again = decide_call(snapshot(troubled, asked=down.model_copy(update={"attempt": 2})))
    assert (again.status, again.events, again.noted) == (None, (), True)
    assert decide_call(snapshot(troubled)).status is None
    other = decide_call(snapshot(troubled, asked=report("Retrying", message="the key was refused")))
    assert status_of(other).status_detail == f"{SENTENCE}. the key was refused"
    assert told(other) == [("Warning", "HumanRequestFailed", "the key was refused")]
    sent = decide_call(snapshot(troubled, asked=report()))
    assert status_of(sent).status_detail == SENTENCE


def test_a_request_that_was_dropped_though_the_call_waits_is_made_again_in_a_moment() -> None:
    plan = decide_call(snapshot(waiting(), asked=report("Dropped")))
    assert plan == CallPlan(noted=True, requeue_after=1.0)


def test_a_report_that_can_not_be_read_keeps_anybody_from_being_asked_twice() -> None:
    unreadable = build_unreadable_report("kubechain.human.result.default.uid-1", "unknown version")
    assert unreadable is not None
    plan = decide_call(snapshot(waiting(), asked=unreadable))
    assert condition_of(plan, HUMAN_ASKED).status == "True"
    assert "can not be read: unknown version" in plan.events[0].message
    assert build_unreadable_report("kubechain.human.result.default.uid-1.retry.3", "unknown version") is None
    assert build_unreadable_report("kubechain.human.result.default", "unknown version") is None


def test_a_missing_channel_is_said_and_healed() -> None:
    plan = decide_call(snapshot(channel=None))
    missing = 'ContactChannel "approval-channel" not found: create it, and the request is sent, or answer with kubectl'
    assert plan.question is None
    assert status_of(plan).status_detail == f"{SENTENCE}. {missing}"
    assert [e[1:] for e in told(plan)][1:] == [("ContactChannelNotFound", missing)]
    stuck = after(build_call(), plan)
    assert decide_call(snapshot(stuck, channel=None)) == NOTHING
    healed = decide_call(snapshot(stuck))
    assert status_of(healed).status_detail == SENTENCE
    assert healed.question is not None
    assert healed.events == ()


def test_a_channel_that_goes_before_anybody_was_asked_is_said() -> None:
    gone = decide_call(snapshot(waiting(), channel=None))
    assert 'ContactChannel "approval-channel" not found' in status_of(gone).status_detail


def test_a_channel_that_goes_after_somebody_was_asked_is_said_once_and_nobody_is_asked_again() -> None:
    plan = decide_call(snapshot(asked(), channel=None))
    lost = (
        'ContactChannel "approval-channel" not found: the answer to what it asked may not arrive, so answer with'
        " kubectl, kubechain or the page"
    )
    assert status_of(plan).status_detail == f"{SENTENCE}. {lost}"
    assert told(plan) == [("Warning", "ContactChannelNotFound", lost)]
    assert plan.question is None
    left = after(asked(), plan)
    assert decide_call(snapshot(left, channel=None)) == NOTHING
    back = decide_call(snapshot(left))
    assert (status_of(back).status_detail, back.question, back.events) == (SENTENCE, None, ())


def test_a_channel_that_takes_the_place_of_another_is_asked_unless_the_first_was() -> None:
    moved = build_mcp_server(approvalContactChannel={"name": "other"})
    other = build_contact_channel("other")
    plan = decide_call(snapshot(waiting(), server=moved, channel=other))
    assert status_of(plan).status_detail == "Waiting for human approval via contact channel other"
    assert plan.question is not None
    assert plan.question.channel.name == "other"
    assert plan.question.external_call_id == waiting().status.external_call_id
    assert decide_call(snapshot(asked(), server=moved, channel=other)) == NOTHING


def test_taking_the_channel_off_the_server_does_not_let_a_waiting_call_through() -> None:
    free = build_mcp_server()
    plan = decide_call(snapshot(waiting(), server=free, channel=None))
    assert plan.request is None
    assert "names no approvalContactChannel any more" in status_of(plan).status_detail
    assert decide_call(snapshot(after(waiting(), plan), server=free, channel=None)) == NOTHING
    assert decide_call(snapshot(asked(), server=free, channel=None)) == NOTHING


@pytest.mark.parametrize("call", [waiting(), asked()], ids=["not asked", "asked"])
def test_the_sentence_comes_back_when_the_message_bus_does(call: TaskRunToolCall) -> None:
    kept = after(call, decide_kept(call, Trouble("MessageBusUnavailable", "Message bus: away")))
    assert kept.status.status_detail == "Message bus: away"
    assert status_of(decide_call(snapshot(kept))).status_detail == SENTENCE


def test_nobody_is_asked_about_a_late_call_before_its_task_was() -> None:
    late = replace(snapshot(), now=NOW + timedelta(seconds=TASK_ASKED_AFTER + 1))
    assert decide_call(late) == CallPlan(ask_task=True)
    assert decide_call(replace(late, task_over=False)).question is not None
    assert decide_call(replace(late, task_over=True)) == CallPlan(stop=True)


def test_a_call_without_a_task_has_ids_all_the_same() -> None:
    orphan = build_call()
    orphan.metadata.owner_references = []
    orphan.metadata.labels = {"kubechain.humanlayer.dev/task-uid": "uid-7"}
    question = decide_call(snapshot(orphan)).question
    assert question is not None
    assert question.run_id == external_run_id("uid-7")
    orphan.metadata.labels = {}
    question = decide_call(snapshot(orphan)).question
    assert question is not None
    assert question.run_id == external_run_id("")


def test_a_call_that_was_made_again_under_its_name_is_another_request() -> None:
    """What a person says of the first one, perhaps only now, is not said of this one and its arguments."""
    again = build_call()
    again.metadata.uid = "uid-of-the-second"
    first, second = decide_call(snapshot()).question, decide_call(snapshot(again)).question
    assert first is not None
    assert second is not None
    assert first.call.name == second.call.name
    assert first.external_call_id != second.external_call_id


# --- decisions


def test_an_approved_call_is_written_down_and_then_runs() -> None:
    call = asked(decision={"approved": True, "by": "alice", "via": "page", "at": "2026-11-23T11:59:59Z"})
    plan = decide_call(snapshot(call))
    status = status_of(plan)
    assert (plan.request, plan.requeue_after, plan.withdraw_question) == (None, 0.0, False)
    assert (status.status, status.status_detail, status.start_time) == ("Ready", "Ready to execute approved tool", NOW)
    assert told(plan) == [("Normal", "Approved", "Ready to execute approved tool")]
    answered = condition_of(plan, ANSWERED)
    assert (answered.status, answered.reason, answered.message) == ("True", "Approved", "Approved by alice via page")
    assert answered.last_transition_time == NOW - timedelta(seconds=1)
    assert condition_of(plan, HUMAN_ASKED).status == "True"
    run = decide_call(snapshot(after(call, plan)))
    assert (run.status, run.question) == (None, None)
    assert run.request is not None
    assert (run.request.arguments, run.request.requested_at) == ("{}", NOW)


def test_edited_arguments_take_the_place_of_the_models() -> None:
    call = asked(decision={"approved": True, "arguments": '{"edited": true}'})
    run = decide_call(snapshot(after(call, decide_call(snapshot(call)))))
    assert run.request is not None
    assert run.request.arguments == '{"edited": true}'
    assert call.spec.arguments == "{}"


def invalid(error: str) -> ToolResult:
    return ToolResult(call=ObjectRef.of(build_call()), outcome="Failed", reason="InvalidArguments", error=error)


def done() -> ToolResult:
    return ToolResult(call=ObjectRef.of(build_call()), outcome="Succeeded", content="x")


def test_edited_arguments_that_do_not_fit_are_not_blamed_on_the_model() -> None:
    call = asked(decision={"approved": True, "arguments": "nonsense", "by": "alice", "via": "cli"})
    status = status_of(decide_call(snapshot(call, result=invalid("The arguments are not valid JSON"))))
    assert (status.phase, status.reason) == (ToolCallPhase.FAILED, "InvalidArguments")
    assert status.error == (
        "The arguments are not those of the model but were edited (Approved by alice via cli): "
        "The arguments are not valid JSON"
    )
    own = status_of(decide_call(snapshot(asked(decision={"approved": True}), result=invalid("bad"))))
    assert own.error == "bad"


@pytest.mark.parametrize(
    ("comment", "read"), [("not on a Friday", "not on a Friday"), (None, "The call was rejected by a human.")]
)
def test_a_rejected_call_ends_with_the_persons_comment(comment: str | None, read: str) -> None:
    call = asked(decision={"approved": False, "comment": comment})
    assert decide_call(snapshot(call)) == CallPlan(stop=True)
    plan = decide_call(snapshot(call, stopped=True))
    status = status_of(plan)
    assert plan.request is None
    assert (status.phase, status.status, status.reason) == (ToolCallPhase.TOOL_CALL_REJECTED, "Succeeded", "Rejected")
    assert (status.status_detail, status.result) == ("Tool execution rejected", read)
    assert told(plan) == [("Normal", "ToolCallRejected", f"Tool execution rejected: {read}")]
    answered = condition_of(plan, ANSWERED)
    assert (answered.reason, answered.message) == ("Rejected", "Rejected by somebody via kubectl")
    assert answered.last_transition_time == NOW


@pytest.mark.parametrize("approved", [True, False])
def test_a_decision_that_is_there_before_the_call_waits_asks_nobody(approved: bool) -> None:
    plan = decide_call(snapshot(build_call(decision={"approved": approved}), stopped=None if approved else True))
    assert (plan.question, plan.withdraw_question) == (None, False)
    assert status_of(plan).phase == (ToolCallPhase.PENDING if approved else ToolCallPhase.TOOL_CALL_REJECTED)


def test_a_decision_counts_where_no_approval_was_needed() -> None:
    free = build_mcp_server()
    rejected = decide_call(snapshot(build_call(decision={"approved": False}), server=free, stopped=True))
    assert status_of(rejected).phase == ToolCallPhase.TOOL_CALL_REJECTED
    assert decide_call(snapshot(build_call(decision={"approved": True}), server=free)).request is not None


@pytest.mark.parametrize(
    ("comment", "read"), [("not on a Friday", f"{TOO_LATE}. The comment: not on a Friday"), (None, TOO_LATE)]
)
@pytest.mark.parametrize("late", [0, 60], ids=["young", "old"])
def test_a_rejected_call_that_had_begun_before_is_not_sent_and_ends_with_what_is_known(
    late: int, comment: str | None, read: str
) -> None:
    """It was deleted and made again under its name, or etcd went back to the time before it was approved."""
    call = waiting(decision={"approved": False, "comment": comment, "by": "alice", "via": "page"})
    plan = decide_call(replace(snapshot(call, stopped=False), now=NOW + timedelta(seconds=late)))
    status = status_of(plan)
    assert (plan.request, plan.ask_task, plan.consumed, plan.withdraw_question) == (None, False, True, True)
    assert (status.phase, status.status, status.reason) == (ToolCallPhase.FAILED, "Error", "OutcomeUnknown")
    assert (status.error, status.status_detail) == (read, read)
    assert told(plan) == [("Warning", "ToolCallRejected", read)]
    assert condition_of(plan, ANSWERED).message == "Rejected by alice via page"


@pytest.mark.parametrize("approved", [True, False])
def test_a_call_that_was_decided_without_asking_is_known_outside_once_it_has_ended(approved: bool) -> None:
    decided = build_call(decision={"approved": approved})
    result = done() if approved else None
    plan = decide_call(snapshot(decided, server=build_mcp_server(), stopped=True, result=result))
    assert status_of(plan).external_call_id == external_call_id("default", decided.name, decided.uid)


def test_a_call_that_no_person_has_to_do_with_is_not_known_outside() -> None:
    plan = decide_call(snapshot(server=build_mcp_server(), result=done()))
    assert (status_of(plan).phase, status_of(plan).external_call_id) == (ToolCallPhase.SUCCEEDED, "")


def test_whoever_was_asked_is_known_by_the_same_id_to_the_end() -> None:
    approved = asked(decision={"approved": True})
    ready = after(approved, decide_call(snapshot(approved)))
    plan = decide_call(snapshot(ready, result=done()))
    known = {call.status.external_call_id for call in (waiting(), approved, ready, after(ready, plan))}
    assert known == {external_call_id("default", ready.name, ready.uid)}


def test_a_decision_about_a_call_under_way_comes_too_late() -> None:
    sent = snapshot(build_call(decision={"approved": False}), sent_at=NOW)
    assert decide_call(sent) == CallPlan(requeue_after=1.0)


@pytest.mark.parametrize("approved", [True, False])
def test_a_request_that_may_lie_in_the_stream_is_taken_back_once_somebody_has_decided(approved: bool) -> None:
    decided = waiting(decision={"approved": approved})
    assert decide_call(snapshot(decided, stopped=True)).withdraw_question
    late = with_spec(asked(), decision={"approved": approved})
    assert not decide_call(snapshot(late, stopped=True)).withdraw_question
    both = decide_call(snapshot(decided, asked=report(), stopped=True))
    assert (both.withdraw_question, both.noted) == (True, True)


def test_a_server_that_is_deleted_takes_the_request_back() -> None:
    plan = decide_call(snapshot(waiting(), server=None, server_asked=True, channel=None))
    assert status_of(plan).reason == "ServerNotFound"
    assert plan.withdraw_question


def test_a_cancelled_call_ends_though_it_was_approved_in_the_same_moment() -> None:
    call = waiting(cancel=True, decision={"approved": True})
    assert decide_call(snapshot(call)) == CallPlan(stop=True)
    plan = decide_call(snapshot(call, stopped=True))
    assert (status_of(plan).reason, plan.request, plan.withdraw_question) == ("Cancelled", None, True)
    assert status_of(plan).error == "The call was cancelled; it was not started"


# --- the deadline


def timed(seconds: int = 60, **spec: Any) -> Any:
    return build_contact_channel(timeoutSeconds=seconds, **spec)


def test_the_deadline_counts_from_the_start_of_the_waiting() -> None:
    assert decide_call(snapshot(channel=timed())).requeue_after == 60.0
    later = replace(snapshot(asked(), channel=timed()), now=NOW + timedelta(seconds=20))
    assert decide_call(later) == CallPlan(requeue_after=40.0)
    sent = decide_call(replace(later, call=waiting(), asked=report()))
    assert sent.requeue_after == 40.0
    assert decide_call(replace(later, channel=timed(30))).requeue_after == 10.0
    assert decide_call(replace(later, channel=CHANNEL)).requeue_after is None
    dropped = decide_call(replace(later, call=waiting(), asked=report("Dropped")))
    assert dropped.requeue_after == 1.0


@pytest.mark.parametrize(
    ("spec", "approved"), [({}, False), ({"onTimeout": "Reject"}, False), ({"onTimeout": "Approve"}, True)]
)
@pytest.mark.parametrize("call", [waiting(), asked()], ids=["not asked", "asked"])
def test_at_the_deadline_the_decision_is_written_in_nobodys_place(
    call: TaskRunToolCall, spec: dict[str, str], approved: bool
) -> None:
    plan = decide_call(replace(snapshot(call, channel=timed(60, **spec)), now=NOW + timedelta(seconds=60)))
    decision = plan.decision
    assert decision is not None
    assert plan == CallPlan(decision=decision, requeue_after=0.0)
    assert decision.to_wire() == {
        "approved": approved,
        "comment": "Nobody answered within 60 seconds",
        "by": "deadline",
        "via": "deadline",
        "at": "2026-11-23T12:01:00Z",
    }
    answered = with_spec(call, decision=decision.to_wire())
    decided = decide_call(snapshot(answered, channel=timed(60, **spec), stopped=True))
    verb = "Approved" if approved else "Rejected"
    assert condition_of(decided, ANSWERED).message == f"{verb} by the deadline of the contact channel"
    if not approved:
        assert status_of(decided).result == "Nobody answered within 60 seconds"


def test_a_decision_that_came_before_the_deadline_counts() -> None:
    late = replace(snapshot(asked(decision={"approved": True}), channel=timed()), now=NOW + timedelta(hours=1))
    assert decide_call(late).decision is None
    assert status_of(decide_call(late)).status == "Ready"
