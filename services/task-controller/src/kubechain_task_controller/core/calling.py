"""The tool calls of a turn: which are still to be made, and the next turn once all have ended."""

from __future__ import annotations

from datetime import datetime

from kubechain_common.api.turn_calls import child_names
from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.api.v1alpha1.conversation import Message, MessageToolCall
from kubechain_common.api.v1alpha1.task import TaskPhase, TaskStatus
from kubechain_task_controller.core.budget import find_exceeded
from kubechain_task_controller.core.context_window import build_tool_message
from kubechain_task_controller.core.last_results import keep_results
from kubechain_task_controller.core.next_turn import go_on
from kubechain_task_controller.core.offload import offload_results
from kubechain_task_controller.core.overflow import count_before, policy_of
from kubechain_task_controller.core.plan import PlannedEvent, TaskPlan, TaskSnapshot
from kubechain_task_controller.core.steps import (
    in_flight,
    stop_at_budget,
    wait_in_flight,
)
from kubechain_task_controller.core.tool_calls import build_tool_call
from kubechain_task_controller.core.window_size import estimate_messages

TOOLS_PENDING = "LLM response received, tool calls pending"
TOOLS_DONE = "All tool calls completed, ready to send tool results to LLM"


def decide_tool_calls(snapshot: TaskSnapshot) -> TaskPlan:
    task = snapshot.task
    # This turn has its answer. A later turn's means that our copy of the Task is behind.
    consumed = snapshot.result is not None and snapshot.result.turn <= task.status.turn
    window = task.status.context_window
    calls = (window[-1].tool_calls if window else None) or []
    names = child_names(task, task.status.turn, len(calls))
    # One that is made later may be made again, and have run before: to a host that lost its record of started calls
    # it must not look younger than that record.
    children, events = find_missing_children(snapshot, calls, requested_at=task.status.start_time or snapshot.now)
    if children:
        return TaskPlan(_end_wait(task.status), consumed=consumed, children=children, events=events)
    found = [snapshot.children.get(name) for name in names]
    if any(child is None and name not in snapshot.refused for child, name in zip(found, names, strict=True)):
        waiting = wait_in_flight(snapshot)  # a tool that the agent does not offer while it is unready
        return TaskPlan(waiting.status, consumed=consumed, events=waiting.events)
    if any(child is not None and not child.finished for child in found):
        return TaskPlan(consumed=consumed)
    messages = [
        build_tool_message(call, child, snapshot.refused.get(name))
        for call, child, name in zip(calls, found, names, strict=True)
    ]
    return _next_turn(snapshot, messages, consumed)


def _end_wait(status: TaskStatus) -> TaskStatus | None:
    """The status of a Task whose calls waited for its Agent and are made now; None if it said nothing of the kind."""
    if status.status != "Pending":
        return None
    return status.model_copy(update=in_flight(TaskPhase.TOOL_CALLS_PENDING, TOOLS_PENDING))


def find_missing_children(
    snapshot: TaskSnapshot, calls: list[MessageToolCall], *, requested_at: datetime
) -> tuple[tuple[TaskRunToolCall, ...], tuple[PlannedEvent, ...]]:
    """The children that are still to be created.

    A tool that an unready agent does not offer may come back: that call waits.
    """
    task = snapshot.task
    names = child_names(task, task.status.turn, len(calls))
    children = tuple(
        build_tool_call(task, name, call, snapshot.catalog, requested_at, snapshot.agent)
        for name, call in zip(names, calls, strict=True)
        if name not in snapshot.children
        and name not in snapshot.refused
        and (snapshot.agent_ready or snapshot.catalog.find(call.function.name) is not None)
    )
    events = tuple(PlannedEvent("Normal", "ToolCallCreated", f"Created TaskRunToolCall {c.name}") for c in children)
    return children, events


def _next_turn(snapshot: TaskSnapshot, messages: list[Message], consumed: bool) -> TaskPlan:
    status = snapshot.task.status
    exceeded = find_exceeded(snapshot)
    if exceeded:  # by a sub-agent; the turn that is not made has no number
        return keep_results(snapshot, stop_at_budget(snapshot, exceeded, status))
    count = status.message_count + len(messages)
    children = {child.spec.tool_call_id: child for child in snapshot.children.values()}
    offloaded = offload_results(snapshot.task, [*status.context_window, *messages], children, count=count)
    tokens = count_before(snapshot) + estimate_messages(messages) if policy_of(snapshot) is not None else None
    done = PlannedEvent("Normal", "AllToolCallsCompleted", TOOLS_DONE)
    status = status.model_copy(update={"status_detail": TOOLS_DONE})
    return go_on(snapshot, status, offloaded, count, tokens, consumed=consumed, events=(done,))
