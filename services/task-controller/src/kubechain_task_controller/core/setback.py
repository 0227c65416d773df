"""The next step of a Task when the last one could not be carried out: something was refused, or is out of reach."""

from __future__ import annotations

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.api.v1alpha1.status import shorten
from kubechain_common.api.v1alpha1.task import TaskPhase
from kubechain_common.messages.trouble import Trouble
from kubechain_task_controller.core.ending import fail, seconds_left
from kubechain_task_controller.core.plan import NOTHING, PlannedEvent, TaskPlan, TaskSnapshot

UNSTORABLE_RETRY = 10.0
"""Seconds until the API server is asked again for what it forbade; nothing tells when that changes."""


def decide_refused(snapshot: TaskSnapshot, refusal: str, *, too_large: bool) -> TaskPlan:
    """The plan when the API server does not take the next status: too large, or against the schema."""
    if too_large:
        detail = f"The context window does not fit into what Kubernetes stores: use shorter messages ({refusal})"
        return fail(snapshot, "ContextWindowTooLarge", detail, event="ContextWindowTooLarge")
    return fail(
        snapshot, "StatusRefused", f"The API server refused the Task's status: {refusal}", event="StatusRefused"
    )


def decide_unstorable(snapshot: TaskSnapshot, refusal: str) -> TaskPlan:
    """The plan when a text of the conversation may not be stored now: a missing right, a quota, a name that is taken.

    A Task that has not begun starts its clock with this, so its deadline holds.
    """
    status, left = snapshot.task.status, seconds_left(snapshot.task, snapshot.now)
    again_in = UNSTORABLE_RETRY if left is None else max(0.001, min(UNSTORABLE_RETRY, left))
    detail = shorten(f"Waiting to store the conversation: {refusal}")
    if status.status_detail == detail:
        return TaskPlan(requeue_after=again_in)
    start = {"phase": status.phase or TaskPhase.PENDING, "start_time": status.start_time or snapshot.now}
    event = PlannedEvent("Warning", "ContextWindowNotStored", detail)
    waiting = status.model_copy(update={**start, "status_detail": detail})
    return TaskPlan(waiting, events=(event,), requeue_after=again_in)


def decide_kept(task: Task, trouble: Trouble) -> TaskPlan:
    """The plan when the message bus keeps the Task from going on: say so, once."""
    detail = shorten(trouble.detail)
    if task.finished or task.status.phase is None or task.status.status_detail == detail:
        return NOTHING
    status = task.status.model_copy(update={"status_detail": detail})
    return TaskPlan(status, events=(PlannedEvent("Warning", trouble.reason, detail),))
