"""What the page is told of a call: pure functions from the object to JSON.

A list holds beginnings only, because a call's arguments may be a megabyte; the whole is in the request's own answer.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kubechain_common.api.tool_arguments import read_question
from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.api.v1alpha1.taskruntoolcall import ANSWERED, HUMAN_ASKED, Decision, HumanResponse

PREVIEW = 240
"""Characters of arguments, questions and comments in a list."""

Json = dict[str, Any]


def format_moment(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if moment else None


def cut(text: str, limit: int = PREVIEW) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def is_question(call: TaskRunToolCall) -> bool:
    return call.spec.tool_type == "HumanContact"


def asked_at(call: TaskRunToolCall) -> datetime | None:
    return call.status.start_time or call.spec.requested_at or call.metadata.creation_timestamp


def answer_of(call: TaskRunToolCall) -> Decision | HumanResponse | None:
    return call.spec.decision or call.spec.response


def answered_at(call: TaskRunToolCall) -> datetime | None:
    """When the call was answered. Where the answer says nothing of the time, it is when we noticed."""
    answer = answer_of(call)
    if answer is None:
        return None
    return answer.at or _when(call, ANSWERED) or call.status.completion_time


def describe_call(call: TaskRunToolCall) -> Json:
    """Which call this is, and what it is about."""
    return {
        "namespace": call.namespace,
        "name": call.name,
        "uid": call.uid,
        "kind": "question" if is_question(call) else "approval",
        "tool": call.spec.tool_ref.name,
        "task": call.spec.task_run_ref.name,
        "preview": cut(read_question(call.spec.arguments) if is_question(call) else call.spec.arguments),
        "askedAt": format_moment(asked_at(call)),
    }


def describe_answer(call: TaskRunToolCall, limit: int | None = PREVIEW) -> Json | None:
    """Who answered what; texts up to ``limit`` characters."""
    answer = answer_of(call)
    if answer is None:
        return None

    def short(text: str | None) -> str | None:
        return text if text is None or limit is None else cut(text, limit)

    told: Json = {"by": answer.by, "via": answer.via or "kubectl", "at": format_moment(answered_at(call))}
    if isinstance(answer, Decision):
        changed = answer.arguments if answer.arguments != call.spec.arguments else None
        return told | {"approved": answer.approved, "comment": short(answer.comment), "arguments": short(changed)}
    return told | {"message": short(answer.message)}


def describe_history(call: TaskRunToolCall) -> list[Json]:
    """What happened to the request so far, oldest first."""
    steps: list[Json] = [{"at": format_moment(asked_at(call)), "what": "The agent asked"}]
    asked = next((c for c in call.status.conditions if c.type == HUMAN_ASKED and c.status == "True"), None)
    if asked is not None:
        what = asked.message or "The request was sent"
        steps.append({"at": format_moment(asked.last_transition_time), "what": what})
    answer = answer_of(call)
    if answer is not None:
        verb = "Answered"
        if isinstance(answer, Decision):
            verb = "Approved" if answer.approved else "Rejected"
        what = f"{verb} by {answer.by or 'somebody'} ({answer.via or 'kubectl'})"
        steps.append({"at": format_moment(answered_at(call)), "what": what})
    if call.finished:
        ended = call.status.status_detail or call.status.phase.value
        steps.append({"at": format_moment(call.status.completion_time), "what": ended})
    return steps


def _when(call: TaskRunToolCall, condition: str) -> datetime | None:
    return next((c.last_transition_time for c in call.status.conditions if c.type == condition), None)
