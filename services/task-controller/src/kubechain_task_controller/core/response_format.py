"""The JSON that an Agent's final answers have to be, and the one turn in which the model may correct an answer.

That a Task has had this turn stands in its condition ``ResponseFormat``, so a crash does not give it another one. An
Agent that is gone when the answer comes asks for nothing.
"""

from __future__ import annotations

from typing import Literal

from kubechain_common.api.v1alpha1.agent import Agent
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.status import Condition, set_condition, shorten
from kubechain_common.api.v1alpha1.task import TaskStatus
from kubechain_common.messages import ResponseFormat
from kubechain_task_controller.core.plan import TaskSnapshot
from kubechain_task_controller.core.response_schema import find_answer_problem, find_schema_problem

CONDITION = "ResponseFormat"
CORRECTION_ASKED = "ResponseFormatCorrection"
FORMAT_VIOLATED = "ResponseFormatViolated"
NOT_FITTING = "The answer does not fit the Agent's responseFormat"

_DEFAULT_NAME = "answer"
_MAX_PROBLEM = 2000


def build_response_format(agent: Agent | None) -> ResponseFormat | None:
    """The format that the model is told of; None where the answer has none."""
    wanted = agent.spec.response_format if agent is not None else None
    if wanted is None:
        return None
    return ResponseFormat(name=wanted.name or _DEFAULT_NAME, json_schema=wanted.json_schema)


def find_problem(snapshot: TaskSnapshot, answer: Message) -> str:
    """Why the final answer does not fit; empty if it does, or if nobody can say so."""
    wanted = snapshot.agent.spec.response_format if snapshot.agent is not None else None
    if wanted is None or find_schema_problem(wanted.json_schema):  # such an Agent is not ready, and says why
        return ""
    return shorten(find_answer_problem(wanted.json_schema, answer.content), _MAX_PROBLEM)


def build_correction(problem: str) -> Message:
    """What the model reads about its answer."""
    return Message(
        role="user",
        content=f"Your answer does not have the required format: {problem}. Answer again, with nothing but JSON that"
        " fits the schema: no other text, no code fence.",
    )


def was_refused(status: TaskStatus) -> bool:
    """Whether the model has had its turn to correct an answer."""
    return any(c.type == CONDITION for c in status.conditions)


def mark_refused(snapshot: TaskSnapshot, problem: str) -> dict[str, object]:
    """The part of a status that says that an answer was refused, and why."""
    return _mark(snapshot, snapshot.task.status, "False", CORRECTION_ASKED, problem)


def mark_fitting(snapshot: TaskSnapshot, status: TaskStatus) -> TaskStatus:
    """The status of an answer that fits now."""
    if not was_refused(status):
        return status
    return status.model_copy(update=_mark(snapshot, status, "True", "Corrected", "The model corrected its answer"))


def _mark(
    snapshot: TaskSnapshot, status: TaskStatus, truth: Literal["True", "False"], reason: str, message: str
) -> dict[str, object]:
    condition = Condition(
        type=CONDITION,
        status=truth,
        reason=reason,
        message=shorten(message),
        last_transition_time=snapshot.now,
        observed_generation=snapshot.task.metadata.generation,
    )
    return {"conditions": set_condition(status.conditions, condition)}
