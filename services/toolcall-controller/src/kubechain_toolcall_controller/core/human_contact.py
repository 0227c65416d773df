"""A call of a person: the model's message is the question, ``spec.response`` the answer and the call's result."""

from __future__ import annotations

import json

from kubechain_common.api.v1alpha1.status import shorten
from kubechain_common.api.v1alpha1.taskruntoolcall import HumanResponse, ToolCallPhase, ToolTarget
from kubechain_common.messages.tool import REASON_INVALID_ARGUMENTS
from kubechain_toolcall_controller.core.answer import mark_answered
from kubechain_toolcall_controller.core.asking import (
    Question,
    decide_asking,
    describe_timeout,
    is_waiting,
    seconds_left,
)
from kubechain_toolcall_controller.core.ending import build_ended
from kubechain_toolcall_controller.core.plan import CallPlan, CallSnapshot, PlannedEvent

REASON_HUMAN_TIMEOUT = "HumanTimeout"


class InvalidQuestionError(ValueError):
    """The model's arguments hold no question; the message tells it what they have to be."""


def parse_question(arguments: str) -> str:
    """The message in the arguments. Raises InvalidQuestionError."""
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError) as error:
        raise InvalidQuestionError(f"The arguments are not valid JSON: {error}") from None
    message = parsed.get("message") if isinstance(parsed, dict) else None
    if not isinstance(message, str) or not message.strip():
        raise InvalidQuestionError(
            'The arguments have to be a JSON object with "message": what the person is to read, which is not empty'
        )
    if not message.isascii():
        _refuse_half_characters(message)
    return message


def _refuse_half_characters(message: str) -> None:
    try:
        message.encode()
    except UnicodeEncodeError:
        raise InvalidQuestionError("The message holds half a surrogate pair, which is no character") from None


def decide_contact(snapshot: CallSnapshot, target: ToolTarget) -> CallPlan:
    """The next step of the call."""
    call = snapshot.call
    if call.spec.response is not None:
        return _succeed(snapshot, call.spec.response)
    try:
        parse_question(call.spec.arguments)
    except InvalidQuestionError as error:
        return fail_contact(snapshot, REASON_INVALID_ARGUMENTS, str(error))
    left = seconds_left(snapshot) if is_waiting(call) else None
    if left is not None and left <= 0:
        late = f"{describe_timeout(snapshot)} via contact channel {target.name}"
        return fail_contact(snapshot, REASON_HUMAN_TIMEOUT, late)
    return decide_asking(snapshot, Question("Contact", target.name))


def _succeed(snapshot: CallSnapshot, response: HumanResponse) -> CallPlan:
    detail = "Human contact completed successfully"
    status = build_ended(snapshot, ToolCallPhase.SUCCEEDED, detail, "Succeeded", result=response.message)
    answered = mark_answered(snapshot.call, status, response, snapshot.now)
    return CallPlan(answered, consumed=True, events=(PlannedEvent("Normal", "HumanContactCompleted", detail),))


def fail_contact(snapshot: CallSnapshot, reason: str, error: str) -> CallPlan:
    """The plan of a call that has failed; the model reads why."""
    status = build_ended(snapshot, ToolCallPhase.FAILED, f"Human contact failed: {error}", reason, error=error)
    event = PlannedEvent("Warning", "HumanContactFailed", shorten(status.status_detail, 1024))
    return CallPlan(status, consumed=True, events=(event,))
