"""How a Task begins: what it waits for, and its first status."""

from __future__ import annotations

from kubechain_common.api.v1alpha1.task import TaskPhase
from kubechain_task_controller.core.budget import (
    find_exceeded,
    find_namespace_wait,
    find_unpriced,
    mark_within,
)
from kubechain_task_controller.core.context_window import (
    build_initial_window,
    find_answers,
    find_problem,
    preview_of,
)
from kubechain_task_controller.core.ending import fail
from kubechain_task_controller.core.next_turn import go_on
from kubechain_task_controller.core.offload import offload_start
from kubechain_task_controller.core.overflow import count_start
from kubechain_task_controller.core.plan import PlannedEvent, TaskPlan, TaskSnapshot
from kubechain_task_controller.core.steps import (
    BUDGET_EXCEEDED,
    SENDING,
    wait,
    wait_for_namespace,
)


def decide_start(snapshot: TaskSnapshot) -> TaskPlan:
    waiting_for = _missing_for_start(snapshot) or find_unpriced(snapshot)
    if waiting_for:
        return wait(snapshot, waiting_for, phase=TaskPhase.PENDING)
    exceeded = find_exceeded(snapshot)
    if exceeded:
        return fail(snapshot, BUDGET_EXCEEDED, exceeded, event=BUDGET_EXCEEDED)
    outside = find_namespace_wait(snapshot)
    if outside:
        return wait_for_namespace(snapshot, outside, phase=TaskPhase.PENDING)
    agent = snapshot.agent
    assert agent is not None  # _missing_for_start says so
    problem = _problem_of_source(snapshot)
    if problem is not None:
        return fail(snapshot, "InvalidContextWindowFrom", problem, event="ValidationFailed")
    problem = find_problem(snapshot.task.spec.context_window or [])
    if problem is not None:
        return fail(snapshot, "InvalidContextWindow", problem, event="ValidationFailed")
    window = build_initial_window(snapshot.task, agent, snapshot.source)
    offloaded = offload_start(snapshot.task, window)
    status = snapshot.task.status.model_copy(
        update={
            "start_time": snapshot.task.status.start_time or snapshot.now,
            "status_detail": SENDING,
            "user_msg_preview": preview_of(window),
            "span_context": snapshot.new_span,
            "observed_generation": snapshot.task.metadata.generation,
            **({"inherited_messages": len(window)} if find_answers(window) else {}),
            **mark_within(snapshot),
        }
    )
    validated = PlannedEvent("Normal", "ValidationSucceeded", "Task validation succeeded")
    tokens = count_start(snapshot, window)
    return go_on(snapshot, status, offloaded, len(window), tokens, events=(validated,))


def _missing_for_start(snapshot: TaskSnapshot) -> str | None:
    if snapshot.agent is None:
        return "Waiting for Agent to exist"
    if not snapshot.agent_ready:
        return f'Waiting for agent "{snapshot.agent.name}" to become ready'
    origin = snapshot.task.spec.context_window_from
    if origin is not None:
        if snapshot.source is None:
            return f'Waiting for Task "{origin.task_ref.name}" to exist'
        if not snapshot.source.task.finished:
            return f'Waiting for Task "{origin.task_ref.name}" to finish'
    return None


def _problem_of_source(snapshot: TaskSnapshot) -> str | None:
    """Why the conversation of the other Task can not be gone on with; nothing would ever heal it."""
    origin, source = snapshot.task.spec.context_window_from, snapshot.source
    if origin is None or source is None:
        return None
    if source.lost:
        return f'The conversation of Task "{source.task.name}" is not complete: {source.lost}'
    last = source.task.status.turn
    if origin.turn is not None and origin.turn > last:
        return f'contextWindowFrom.turn is {origin.turn}, but Task "{source.task.name}" ended in turn {last}'
    return None
