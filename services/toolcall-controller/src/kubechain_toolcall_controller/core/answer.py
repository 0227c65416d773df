"""What the status says of a person's answer: condition Answered, with who it was and by which road."""

from __future__ import annotations

from datetime import datetime

from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.api.v1alpha1.status import Condition, set_condition
from kubechain_common.api.v1alpha1.taskruntoolcall import (
    ANSWERED,
    Answer,
    Decision,
    TaskRunToolCallStatus,
)


def mark_answered(
    call: TaskRunToolCall, status: TaskRunToolCallStatus, answer: Answer, now: datetime
) -> TaskRunToolCallStatus:
    """The status, with the condition that ``call`` was answered."""
    condition = Condition(
        type=ANSWERED,
        status="True",
        reason=_verb(answer),
        message=describe_answer(answer),
        last_transition_time=answer.at or now,
        observed_generation=call.metadata.generation,
    )
    return status.model_copy(update={"conditions": set_condition(status.conditions, condition)})


def describe_answer(answer: Answer) -> str:
    """``Approved by alice via page``. An answer by kubectl need not say so, nor whose it is."""
    if answer.via == "deadline":
        return f"{_verb(answer)} by the deadline of the contact channel"
    return f"{_verb(answer)} by {answer.by or 'somebody'} via {answer.via or 'kubectl'}"


def _verb(answer: Answer) -> str:
    if not isinstance(answer, Decision):
        return "Answered"
    return "Approved" if answer.approved else "Rejected"
