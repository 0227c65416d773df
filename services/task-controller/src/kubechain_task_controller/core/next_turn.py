"""How a turn follows another: the request, a summary before it, or the end where the window has no room for it."""

from __future__ import annotations

from dataclasses import replace

from kubechain_common.api.v1alpha1.agent import AgentContext
from kubechain_common.api.v1alpha1.status import shorten
from kubechain_common.api.v1alpha1.task import TaskPhase, TaskStatus
from kubechain_task_controller.core.ending import end_failed
from kubechain_task_controller.core.offload import Offloaded
from kubechain_task_controller.core.overflow import choose_kept, policy_of
from kubechain_task_controller.core.plan import PlannedEvent, TaskPlan, TaskSnapshot
from kubechain_task_controller.core.steps import (
    begin_turn,
    end_at_max_turns,
    in_flight,
    keep_window,
    max_turns_of,
)

WINDOW_EXCEEDED = "ContextWindowExceeded"
SUMMARISING = "SummarisingContextWindow"


def go_on(
    snapshot: TaskSnapshot,
    status: TaskStatus,
    offloaded: Offloaded,
    count: int,
    tokens: int | None,
    *,
    consumed: bool = True,
    events: tuple[PlannedEvent, ...] = (),
    summarised: bool = False,
) -> TaskPlan:
    """The plan of the turn after the one in ``status``, whose window is to be ``offloaded`` with ``count`` messages.

    ``tokens`` is about what the model would read; ``summarised`` says that this has been brought down already.
    """
    policy = policy_of(snapshot)
    kept = status.model_copy(
        update={
            **keep_window(offloaded.window, count),
            **({"window_tokens": tokens} if tokens != status.window_tokens else {}),
            **({"summary_keeps": None} if status.summary_keeps is not None else {}),
        }
    )
    if policy is None or tokens is None or tokens <= policy.max_tokens:
        turn = TaskPlan(_next(kept, kept.status_detail), events=events)
        plan = begin_turn(snapshot, turn)
        plan = replace(plan, may_wait=plan.fresh and _follows_from_what_is_written(snapshot))
    else:
        plan = _overflow(snapshot, kept, policy, tokens, events, summarised=summarised)
    return replace(plan, consumed=consumed, stored=offloaded.stored, texts=offloaded.texts)


def _follows_from_what_is_written(snapshot: TaskSnapshot) -> bool:
    """Not from an answer, which is let go once it is written, nor from another Task, which may be deleted."""
    task = snapshot.task
    return task.status.phase in (None, TaskPhase.TOOL_CALLS_PENDING) and task.spec.context_window_from is None


def _overflow(
    snapshot: TaskSnapshot,
    status: TaskStatus,
    policy: AgentContext,
    tokens: int,
    events: tuple[PlannedEvent, ...],
    *,
    summarised: bool,
) -> TaskPlan:
    over = f"about {tokens:,} tokens are over the Agent's context.maxTokens of {policy.max_tokens:,}"
    keeps = None
    if policy.on_overflow == "Summarise" and not summarised:
        keeps = choose_kept(status.context_window, policy.max_tokens)
    if keeps is None:
        why = ", even with a summary" if policy.on_overflow == "Summarise" else ""
        detail = f"The context window is full: {over}{why}"
        event = PlannedEvent("Warning", WINDOW_EXCEEDED, detail)
        return end_failed(snapshot, WINDOW_EXCEEDED, detail, detail, event, status)
    if status.turn + 2 > max_turns_of(snapshot):  # a summary would be the last that is said
        return end_at_max_turns(snapshot, status)
    detail = shorten(f"Asking the LLM for a summary of the conversation: {over}")
    asked = _next(status, detail).model_copy(update={"summary_keeps": keeps})
    event = PlannedEvent("Normal", SUMMARISING, detail)
    return begin_turn(snapshot, TaskPlan(asked, events=(*events, event)))


def _next(status: TaskStatus, detail: str) -> TaskStatus:
    update = {**in_flight(TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM, detail), "turn": status.turn + 1}
    return status.model_copy(update=update)
