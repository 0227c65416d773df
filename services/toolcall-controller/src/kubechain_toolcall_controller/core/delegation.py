"""The next step of a call that delegates to a sub-agent.

    Pending -> (its Task is created) -> AwaitingSubAgent -> Succeeded | Failed

The Task is created before the call is shown as AwaitingSubAgent, so one that is missing afterwards was deleted, and is
never made again. Whoever ends a call on the word of our cache asks the API server first.
"""

from __future__ import annotations

from dataclasses import replace

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.api.v1alpha1.agent import DEFAULT_MAX_DELEGATION_DEPTH
from kubechain_common.api.v1alpha1.status import shorten
from kubechain_common.api.v1alpha1.task import ANSWER_INCOMPLETE, TaskPhase
from kubechain_common.api.v1alpha1.taskruntoolcall import Delegation, ToolCallPhase
from kubechain_common.messages.tool import REASON_CANCELLED, REASON_OUTCOME_UNKNOWN
from kubechain_toolcall_controller.core.ending import build_ended
from kubechain_toolcall_controller.core.plan import NOTHING, CallPlan, CallSnapshot, PlannedEvent
from kubechain_toolcall_controller.core.sub_task import build_sub_task, read_message

AWAITING = "Delegating to sub-agent"
COMPLETED = "Sub-agent completed successfully"

LOOK_AGAIN_AFTER = 10.0
"""Seconds until a Task that the API server has, and our cache lacks, is looked for again."""

_NO_HANDING_DOWN = Delegation(depth=1, max_depth=DEFAULT_MAX_DELEGATION_DEPTH)
"""For a call that no Task's controller has made."""


def decide_delegation(snapshot: CallSnapshot) -> CallPlan:
    """What is to be done now about a call whose target is an agent; it has not ended and is not being deleted."""
    child = snapshot.sub_task.task
    if child is not None and child.finished:
        return _finish(snapshot, child)
    if snapshot.call.spec.cancel or snapshot.task_over or snapshot.sub_task.forbidden:
        return _cancel(snapshot)
    if child is not None:
        return _await(snapshot, child)
    if snapshot.sub_task.asked:
        return _fail_without_task(snapshot)
    if snapshot.call.status.status == "AwaitingSubAgent":
        return CallPlan(ask_sub_task=True)
    return _begin(snapshot)


def _fail_without_task(snapshot: CallSnapshot) -> CallPlan:
    gone = f'The Task of sub-agent "{_agent_of(snapshot)}" was deleted before it ended: what it had done by then stays'
    return fail_delegation(snapshot, "SubAgentTaskDeleted", gone)


# --- the beginning ---------------------------------------------------------------------------------------------------


def _begin(snapshot: CallSnapshot) -> CallPlan:
    call, agent, known = snapshot.call, _agent_of(snapshot), snapshot.sub_task
    delegation = call.spec.delegation or _NO_HANDING_DOWN
    message = read_message(call.spec.arguments)
    if message is None:
        needed = f'To delegate to agent "{agent}" the arguments have to be {{"message": "..."}} with a text in it'
        return fail_delegation(snapshot, "InvalidArguments", needed)
    if delegation.depth > delegation.max_depth:
        return fail_delegation(snapshot, "DelegationTooDeep", _too_deep(agent, delegation))
    if known.begun_before:
        before = f'A call of this name was delegated to sub-agent "{agent}" before: what came of it is unknown'
        return fail_delegation(snapshot, REASON_OUTCOME_UNKNOWN, before)
    if known.refused:
        refused = f'The Task for sub-agent "{agent}" was refused: {known.refused}'
        return fail_delegation(snapshot, "SubAgentTaskRefused", refused)
    if snapshot.asks_task_first:
        return CallPlan(ask_task=True)
    task = build_sub_task(call, agent, message, delegation, span=snapshot.new_span, now=snapshot.now)
    return CallPlan(delegate=task)


def _too_deep(agent: str, delegation: Delegation) -> str:
    return (
        f'Agent "{agent}" was not asked: this would be delegation number {delegation.depth} below one another, and the'
        f" limit is {delegation.max_depth} (maxDelegationDepth of the agent that delegates)"
    )


def _await(snapshot: CallSnapshot, child: Task) -> CallPlan:
    """The call says what the sub-agent's Task waits for, if it does not get on."""
    status = snapshot.call.status
    begins = status.status != "AwaitingSubAgent"
    waits = child.status.status == "Pending" and child.status.status_detail
    detail = shorten(f"{AWAITING}: {child.status.status_detail}") if waits else AWAITING
    # One that our cache lacks wakes nobody when it changes.
    again = LOOK_AGAIN_AFTER if snapshot.sub_task.asked and not begins else None
    if not begins and status.status_detail == detail:
        return CallPlan(requeue_after=again) if again else NOTHING
    update = {
        "phase": ToolCallPhase.PENDING,
        "status": "AwaitingSubAgent",
        "status_detail": detail,
        "start_time": status.start_time or snapshot.now,
    }
    event = PlannedEvent("Normal", "DelegatingToSubAgent", f'Delegating to sub-agent "{_agent_of(snapshot)}"')
    return CallPlan(status.model_copy(update=update), events=(event,) if begins else (), requeue_after=again)


# --- the end ---------------------------------------------------------------------------------------------------------


def _finish(snapshot: CallSnapshot, child: Task) -> CallPlan:
    if not snapshot.sub_task.asked:
        return CallPlan(ask_sub_task=True)  # for its output
    if child.status.phase == TaskPhase.FAILED:
        error = child.status.error or child.status.status_detail or "no reason given"
        detail = f"Sub-agent task failed: {error}"
        event = PlannedEvent("Warning", "SubAgentFailed", shorten(detail))
        return _end(snapshot, ToolCallPhase.FAILED, "SubAgentFailed", event, error=error)
    incomplete = any(c.reason == ANSWER_INCOMPLETE for c in child.status.conditions)
    detail = f"Sub-agent completed: {child.status.status_detail}" if incomplete else COMPLETED
    event = PlannedEvent("Normal", "SubAgentCompleted", shorten(detail))
    return _end(snapshot, ToolCallPhase.SUCCEEDED, "Succeeded", event, result=child.status.output)


def _cancel(snapshot: CallSnapshot) -> CallPlan:
    """First nothing may begin any more; then what has begun is cancelled too, and only then the call has ended."""
    known, child = snapshot.sub_task, snapshot.sub_task.task
    if not known.forbidden:
        if snapshot.stopped is None:
            return CallPlan(stop=True)
        if child is None and not known.asked:
            return CallPlan(ask_sub_task=True)
    why = "The Task of this call has ended" if snapshot.task_over else "The call was cancelled"
    if child is not None:
        said = f'{why}, and with it Task "{child.name}" of the sub-agent: what that had done by then stays'
        event = PlannedEvent("Normal", REASON_CANCELLED, said)
    elif known.forbidden or snapshot.stopped:
        event = PlannedEvent("Normal", REASON_CANCELLED, f"{why}; it was not started")
    else:
        unknown = f"{why}; it had been started, or may have been: whether it took effect is unknown"
        event = PlannedEvent("Warning", REASON_CANCELLED, unknown)
    plan = _end(snapshot, ToolCallPhase.FAILED, REASON_CANCELLED, event, error=event.message)
    return replace(plan, cancel_sub_task=child is not None and not child.spec.cancel)


def fail_delegation(snapshot: CallSnapshot, reason: str, error: str) -> CallPlan:
    """The end of a call whose sub-agent was not asked, or of which nothing more is known."""
    event = PlannedEvent("Warning", "SubAgentFailed", shorten(f"Delegation failed: {error}"))
    return _end(snapshot, ToolCallPhase.FAILED, reason, event, error=error)


def _end(
    snapshot: CallSnapshot,
    phase: ToolCallPhase,
    reason: str,
    event: PlannedEvent,
    *,
    result: str = "",
    error: str = "",
) -> CallPlan:
    """The event's words are those of the status."""
    status = build_ended(snapshot, phase, event.message, reason, result=result, error=error)
    return CallPlan(status, consumed=True, events=(event,))


def _agent_of(snapshot: CallSnapshot) -> str:
    target = snapshot.call.spec.target
    assert target is not None  # decide_call says so
    return target.name
