"""A call of a person: its question, its answer, and what keeps the answer away."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.api.v1alpha1.taskruntoolcall import ANSWERED, HUMAN_ASKED, ToolCallPhase
from kubechain_common.messages import ObjectRef
from kubechain_common.messages.human import HumanResult
from kubechain_common.testing.builders import NOW, build_call, build_contact_channel
from kubechain_toolcall_controller.core.call_decision import decide_call, decide_refused
from kubechain_toolcall_controller.core.human_contact import InvalidQuestionError, parse_question
from kubechain_toolcall_controller.core.plan import NOTHING, TASK_ASKED_AFTER, CallPlan, CallSnapshot

CHANNEL = build_contact_channel("boss", type="email")
SENTENCE = "Waiting for human input via contact channel boss"


def contact(**spec: Any) -> TaskRunToolCall:
    return build_call(
        **{
            "toolRef": {"name": "boss__human_contact_email"},
            "toolType": "HumanContact",
            "target": {"name": "boss"},
            "arguments": json.dumps({"message": "May I?"}),
            **spec,
        }
    )


def snapshot(call: TaskRunToolCall | None = None, **parts: Any) -> CallSnapshot:
    return CallSnapshot(call=call or contact(), now=NOW, **{"channel": CHANNEL, **parts})


def waiting(**spec: Any) -> TaskRunToolCall:
    return contact(**spec).model_copy(update={"status": decide_call(snapshot()).status})


def sent() -> HumanResult:
    return HumanResult(call=ObjectRef.of(contact()), outcome="Sent")


def test_the_person_is_asked_once_and_answers() -> None:
    plan = decide_call(snapshot())
    assert plan.status is not None
    assert (plan.status.phase, plan.status.status, plan.status.status_detail) == (
        ToolCallPhase.PENDING,
        "AwaitingHumanInput",
        SENTENCE,
    )
    assert [(e.reason, e.message) for e in plan.events] == [
        ("AwaitingHumanContact", "Human input requested via contact channel boss")
    ]
    assert plan.question is not None
    assert (plan.question.kind, plan.question.channel.uid) == ("Contact", CHANNEL.uid)
    asked = decide_call(snapshot(waiting(), asked=sent())).status
    assert asked is not None
    assert [c.type for c in asked.conditions] == [HUMAN_ASKED]
    waits = contact().model_copy(update={"status": asked})
    assert decide_call(snapshot(waits)) == NOTHING
    answered = contact(response={"message": "Yes.", "by": "bob", "via": "link"}).model_copy(update={"status": asked})
    done = decide_call(snapshot(answered))
    assert done.status is not None
    assert (done.status.phase, done.status.status, done.status.result) == (
        ToolCallPhase.SUCCEEDED,
        "Succeeded",
        "Yes.",
    )
    assert done.status.status_detail == "Human contact completed successfully"
    assert [(e.type, e.reason) for e in done.events] == [("Normal", "HumanContactCompleted")]
    assert [c.message for c in done.status.conditions if c.type == ANSWERED] == ["Answered by bob via link"]
    assert done.consumed
    assert not done.withdraw_question


def test_an_answer_that_is_there_before_the_call_waits_asks_nobody() -> None:
    plan = decide_call(snapshot(contact(response={"message": "Yes."})))
    assert plan.status is not None
    assert (plan.status.phase, plan.question, plan.withdraw_question) == (ToolCallPhase.SUCCEEDED, None, False)


def test_an_answer_takes_back_a_request_that_may_not_have_been_sent() -> None:
    assert decide_call(snapshot(waiting(response={"message": "Yes."}))).withdraw_question


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "not valid JSON"),
        ("May I?", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('"May I?"', '"message"'),
        ("[]", '"message"'),
        ("null", '"message"'),
        ("{}", '"message"'),
        ('{"message": 1}', '"message"'),
        ('{"message": null}', '"message"'),
        ('{"message": ""}', '"message"'),
        ('{"message": " \\n"}', '"message"'),
        ('{"message": "\\ud800"}', "half a surrogate pair"),
    ],
)
def test_a_question_that_is_none_fails_with_a_sentence_for_the_model(arguments: str, says: str) -> None:
    with pytest.raises(InvalidQuestionError, match=says):
        parse_question(arguments)
    plan = decide_call(snapshot(contact(arguments=arguments)))
    assert plan.status is not None
    assert plan.question is None
    assert (plan.status.phase, plan.status.reason) == (ToolCallPhase.FAILED, "InvalidArguments")
    assert says in plan.status.error
    assert plan.status.status_detail == f"Human contact failed: {plan.status.error}"
    assert [(e.type, e.reason) for e in plan.events] == [("Warning", "HumanContactFailed")]


def test_more_than_the_message_does_no_harm() -> None:
    assert parse_question('{"message": "Grüße 🌍", "urgent": true}') == "Grüße 🌍"


def test_a_missing_channel_is_said_and_healed() -> None:
    plan = decide_call(snapshot(channel=None))
    assert plan.status is not None
    assert plan.status.status_detail.startswith(f'{SENTENCE}. ContactChannel "boss" not found')
    healed = decide_call(snapshot(contact().model_copy(update={"status": plan.status})))
    assert healed.status is not None
    assert healed.status.status_detail == SENTENCE
    assert healed.question is not None


def test_a_question_that_nobody_answers_in_time_fails() -> None:
    channel = build_contact_channel("boss", timeoutSeconds=1, onTimeout="Approve")
    early = decide_call(snapshot(waiting(), channel=channel))
    assert early.requeue_after == 1.0
    late = replace(snapshot(waiting(), channel=channel), now=NOW + timedelta(seconds=1))
    plan = decide_call(late)
    assert plan.status is not None
    assert (plan.status.phase, plan.status.reason) == (ToolCallPhase.FAILED, "HumanTimeout")
    assert plan.status.error == "Nobody answered within 1 second via contact channel boss"
    assert (plan.decision, plan.withdraw_question) == (None, True)
    answered = decide_call(replace(late, call=waiting(response={"message": "Yes."})))
    assert answered.status is not None
    assert answered.status.phase == ToolCallPhase.SUCCEEDED


@pytest.mark.parametrize("call", [contact(cancel=True), waiting(cancel=True)], ids=["new", "waiting"])
def test_a_question_is_taken_back_without_asking_whether_a_tool_had_begun(call: TaskRunToolCall) -> None:
    plan = decide_call(snapshot(call))
    assert plan.status is not None
    assert (plan.status.phase, plan.status.reason) == (ToolCallPhase.FAILED, "Cancelled")
    assert plan.status.error == "The call was cancelled; nobody had answered"
    assert plan.withdraw_question is (call.status.status is not None)


def test_an_answer_that_came_before_the_cancellation_was_seen_counts() -> None:
    plan = decide_call(snapshot(waiting(cancel=True, response={"message": "Yes."})))
    assert plan.status is not None
    assert plan.status.result == "Yes."


def test_nobody_is_asked_for_a_task_that_has_ended() -> None:
    late = replace(snapshot(), now=NOW + timedelta(seconds=TASK_ASKED_AFTER + 1))
    assert decide_call(late) == CallPlan(ask_task=True)
    over = decide_call(replace(late, task_over=True)).status
    assert over is not None
    assert over.error == "The Task of this call has ended; nobody had answered"


def test_an_answer_that_the_api_server_refuses_fails_the_call() -> None:
    call = waiting(response={"message": "Yes."})
    plan = decide_refused(snapshot(call), "too large")
    assert plan.status is not None
    assert (plan.status.reason, plan.withdraw_question) == ("ResultRefused", True)
    assert plan.status.status_detail.startswith("Human contact failed: ")
    assert plan.status.error == "The API server refused what was to be written about the call: too large"
