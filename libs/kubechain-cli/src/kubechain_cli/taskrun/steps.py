"""What happened between two sights of a Task or of a tool call, in words. Pure functions.

A watch may skip states when much happens at once; what is said here follows from the two states alone, so nothing
depends on seeing each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kubechain_common.api.v1alpha1 import Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.status import shorten
from kubechain_common.api.v1alpha1.task import ANSWER_INCOMPLETE, TaskPhase
from kubechain_common.api.v1alpha1.taskruntoolcall import ToolCallPhase

StepKind = Literal["asking", "progress", "call", "result", "waiting", "answer", "error"]

PREVIEW = 200
"""Characters of arguments and results that a step shows."""


@dataclass(frozen=True)
class Step:
    """One line of progress. ``waiting`` means that somebody has to do something before the Task goes on.

    ``turn`` is the turn that a step belongs to.
    """

    kind: StepKind
    text: str
    turn: int = 0


def describe_task(old: Task | None, new: Task) -> list[Step]:
    """The steps that led from ``old`` (None: nothing seen yet) to ``new``."""
    before, now = (old.status if old else None), new.status
    if now.phase is None:
        return []
    moved = before is None or (before.phase, before.turn) != (now.phase, now.turn)
    said = before is not None and before.status_detail != now.status_detail
    if now.phase == TaskPhase.PENDING:
        return [Step("waiting", now.status_detail or "Pending")] if moved or said else []
    if not moved:
        return [Step("progress", now.status_detail)] if said and now.status_detail else []
    return [_describe_phase(new)]


def describe_asking(turn: int) -> Step:
    """The step that begins a turn."""
    return Step("asking", f"turn {turn}: asking the LLM", turn)


def _describe_phase(task: Task) -> Step:
    status = task.status
    match status.phase:
        case TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM:
            return describe_asking(status.turn)
        case TaskPhase.TOOL_CALLS_PENDING:
            return Step("progress", f"turn {status.turn}: the LLM asks for {_count_calls(task)}", status.turn)
        case TaskPhase.FINAL_ANSWER:
            return Step("answer", f"final answer{_describe_cost(task)}{_describe_shortfall(task)}")
        case _:
            return Step("error", f"failed: {failure_of(task)}")


def said_last(task: Task) -> str:
    """What the model said in this turn; empty as long as it is asked, or where the Task has the beginning only."""
    if task.finished:
        return task.status.output
    if task.status.phase != TaskPhase.TOOL_CALLS_PENDING:
        return ""
    said = next((m for m in reversed(task.status.context_window) if m.role == "assistant"), None)
    return said.content if said is not None and said.content_from is None else ""


def _count_calls(task: Task) -> str:
    asked = next((m.tool_calls for m in reversed(task.status.context_window) if m.tool_calls), [])
    return f"{len(asked)} tool calls" if len(asked) > 1 else "a tool call"


def _describe_cost(task: Task) -> str:
    usage = task.status.token_usage
    tokens = f", {usage.total_tokens} tokens" if usage and usage.total_tokens else ""
    cost = f", {task.status.cost} {task.status.currency or ''}".rstrip() if task.status.cost else ""
    return f" after {task.status.turn} turn{'s' if task.status.turn != 1 else ''}{tokens}{cost}"


def _describe_shortfall(task: Task) -> str:
    """What the answer lacks, so that nobody takes a part of it for the whole."""
    reasons = {condition.reason for condition in task.status.conditions if condition.type == "Complete"}
    return f" ({task.status.status_detail})" if ANSWER_INCOMPLETE in reasons else ""


def failure_of(task: Task) -> str:
    """Why the Task failed, as well as its status says."""
    return task.status.error or task.status.status_detail or "the Task says no reason"


def describe_call(old: TaskRunToolCall | None, new: TaskRunToolCall) -> list[Step]:
    """The steps that led from ``old`` (None: nothing seen yet) to ``new``."""
    steps = [] if old else [Step("call", f"{new.spec.tool_ref.name} {_preview(new.spec.arguments)}".rstrip())]
    before = old.status if old else None
    now = new.status
    if new.finished:
        return steps if old and old.finished else [*steps, _describe_outcome(new)]
    awaits = (now.status or "").startswith("Awaiting")
    if awaits and (before is None or (before.status, before.status_detail) != (now.status, now.status_detail)):
        detail = now.status_detail or now.status
        return [*steps, Step("waiting", f"{new.spec.tool_ref.name}: {detail} ({new.name})")]
    return steps


def _describe_outcome(call: TaskRunToolCall) -> Step:
    tool, status = call.spec.tool_ref.name, call.status
    match status.phase:
        case ToolCallPhase.SUCCEEDED:
            return Step("result", f"{tool} succeeded: {_preview(status.result)}")
        case ToolCallPhase.TOOL_CALL_REJECTED:
            return Step("result", f"{tool} was rejected: {_preview(status.result or status.status_detail)}")
        case _:
            return Step("error", f"{tool} failed: {_preview(status.error or status.status_detail)}")


def _preview(text: str) -> str:
    return shorten(" ".join(text.split()), PREVIEW)
