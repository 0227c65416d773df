"""How a Task ends without an answer, and what it takes back when it does."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.api.v1alpha1.status import Condition, set_condition, shorten
from kubechain_common.api.v1alpha1.task import TaskPhase, TaskStatus
from kubechain_task_controller.core.plan import PlannedEvent, TaskPlan, TaskSnapshot
from kubechain_task_controller.core.tool_calls import calls_to_forbid


def awaits_llm(task: Task) -> bool:
    """Whether the model is asked, by all that is written, or drafted."""
    return task.status.phase == TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM


def calls_under_way(snapshot: TaskSnapshot) -> tuple[str, ...]:
    """The names of the Task's calls that have neither ended nor been cancelled."""
    return tuple(sorted(name for name, call in snapshot.children.items() if not (call.finished or call.spec.cancel)))


def seconds_left(task: Task, now: datetime) -> float | None:
    """Seconds until the Task's deadline; None without one. The clock starts when the controller sees the Task for the
    first time, so what the Task waits for counts, too.
    """
    deadline, started = task.spec.active_deadline_seconds, task.status.start_time or now
    if deadline is None:
        return None
    return deadline - (now - started).total_seconds()


def ended(
    snapshot: TaskSnapshot, condition: str, reason: str, message: str, status: TaskStatus | None = None
) -> dict[str, object]:
    """The parts of a status that say when, and with which condition, the Task ended.

    ``status`` is the one that is written, if not the Task's own.
    """
    status = status or snapshot.task.status
    new = Condition(
        type=condition,
        status="True",
        reason=reason,
        message=message,
        last_transition_time=snapshot.now,
        observed_generation=snapshot.task.metadata.generation,
    )
    return {
        "completion_time": snapshot.now,
        "start_time": status.start_time or snapshot.now,
        "conditions": set_condition(status.conditions, new),
    }


def fail(snapshot: TaskSnapshot, reason: str, detail: str, *, event: str) -> TaskPlan:
    """The end of a Task that nothing can help."""
    return end_failed(snapshot, reason, detail, detail, PlannedEvent("Warning", event, detail))


def end_early(snapshot: TaskSnapshot, reason: str, detail: str, *, event: str) -> TaskPlan:
    """The end of a Task that somebody, or its deadline, ends; the request to the model is taken back."""
    return replace(fail(snapshot, reason, detail, event=event), withdraw=True)


def end_failed(
    snapshot: TaskSnapshot,
    reason: str,
    detail: str,
    error: str,
    event: PlannedEvent,
    status: TaskStatus | None = None,
) -> TaskPlan:
    """The plan that ends the Task as Failed. ``detail`` and ``error`` are for people; ``status`` is the one that is
    written, if not the Task's own.
    """
    base = status or snapshot.task.status
    failed = base.model_copy(
        update={
            "phase": TaskPhase.FAILED,
            "ready": False,
            "status": "Error",
            "status_detail": shorten(detail),
            "error": shorten(error),
            **ended(snapshot, "Failed", reason, shorten(detail), base),
        }
    )
    return TaskPlan(
        failed,
        consumed=True,
        events=(event,),
        forbid=calls_to_forbid(snapshot.task, snapshot.children),
        cancel=calls_under_way(snapshot),
    )
