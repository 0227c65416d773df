"""What the steps of a Task have in common: how it waits, how a turn begins, and parts of a status."""

from __future__ import annotations

from dataclasses import replace

from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.task import DEFAULT_MAX_TURNS, TaskPhase, TaskStatus
from kubechain_task_controller.core.budget import (
    UNREADABLE,
    USED_UP,
    find_namespace_wait,
    find_unpriced,
    mark_outside,
)
from kubechain_task_controller.core.ending import end_failed
from kubechain_task_controller.core.plan import NOTHING, PlannedEvent, TaskPlan, TaskSnapshot

SENDING = "Sending context window to LLM"
BUDGET_EXCEEDED = "BudgetExceeded"

SENDING_EVENT = PlannedEvent("Normal", "SendingContextWindowToLLM", SENDING)


def in_flight(phase: TaskPhase, detail: str) -> dict[str, object]:
    return {"phase": phase, "ready": True, "status": "Ready", "status_detail": detail}


def keep_window(window: list[Message], count: int) -> dict[str, object]:
    """The part of a status that holds the window. ``count`` is the number of messages in the whole conversation,
    however many of them the window shows.
    """
    return {"context_window": window, "message_count": count}


def wait(snapshot: TaskSnapshot, detail: str, *, phase: TaskPhase) -> TaskPlan:
    """The plan that says what the Task waits for; whatever arrives wakes it."""
    status = snapshot.task.status
    if status.phase == phase and status.status_detail == detail:
        return NOTHING
    update = {
        "phase": phase,
        "ready": False,
        "status": "Pending",
        "status_detail": detail,
        "start_time": status.start_time or snapshot.now,
    }
    return TaskPlan(status.model_copy(update=update), events=(PlannedEvent("Normal", "Waiting", detail),))


def wait_in_flight(snapshot: TaskSnapshot) -> TaskPlan:
    phase = snapshot.task.status.phase
    assert phase is not None
    name = snapshot.task.spec.agent_ref.name
    detail = "Waiting for Agent to exist" if snapshot.agent is None else f'Waiting for agent "{name}" to become ready'
    return wait(snapshot, detail, phase=phase)


def wait_for_namespace(snapshot: TaskSnapshot, detail: str, *, phase: TaskPhase) -> TaskPlan:
    """The plan that waits until the next period begins, or somebody gives the namespace a larger budget."""
    plan = wait(snapshot, detail, phase=phase)
    budget, reason = snapshot.namespace_budget, UNREADABLE
    if budget is not None and not budget.problem:
        plan, reason = replace(plan, requeue_after=budget.seconds_left(snapshot.now)), USED_UP
    if plan.status is None:
        return plan
    status = plan.status.model_copy(update=mark_outside(snapshot, reason, detail))
    return replace(plan, status=status, events=(PlannedEvent("Warning", reason, detail),))


def begin_turn(snapshot: TaskSnapshot, plan: TaskPlan) -> TaskPlan:
    """The plan, which also sends the turn that its status stands in, unless that has to wait: the next reconcile says
    for what.
    """
    if not snapshot.agent_ready or find_unpriced(snapshot) or find_namespace_wait(snapshot):
        return plan
    return replace(plan, send=True, fresh=True, events=(*plan.events, SENDING_EVENT))


def stop_at_budget(snapshot: TaskSnapshot, exceeded: str, status: TaskStatus) -> TaskPlan:
    event = PlannedEvent("Warning", BUDGET_EXCEEDED, exceeded)
    return end_failed(snapshot, BUDGET_EXCEEDED, exceeded, exceeded, event, status)


def end_at_max_turns(snapshot: TaskSnapshot, status: TaskStatus) -> TaskPlan:
    reached = f"The Task reached its limit of {max_turns_of(snapshot)} turns (maxTurns) without a final answer"
    event = PlannedEvent("Warning", "MaxTurnsExceeded", reached)
    return end_failed(snapshot, "MaxTurnsExceeded", reached, reached, event, status)


def is_last_turn(snapshot: TaskSnapshot) -> bool:
    """Whether no turn may follow. Nobody can say so while the Agent is away that might: its next answer is judged."""
    known = snapshot.agent is not None or snapshot.task.spec.max_turns is not None
    return known and snapshot.task.status.turn >= max_turns_of(snapshot)


def max_turns_of(snapshot: TaskSnapshot) -> int:
    own = snapshot.task.spec.max_turns
    agents = snapshot.agent.spec.max_turns if snapshot.agent else None
    return own or agents or DEFAULT_MAX_TURNS
