"""The tool calls of a Task's turn, by their names, whether they exist yet or not."""

from __future__ import annotations

from kubechain_common.api.names import tool_call_name
from kubechain_common.api.v1alpha1.task import Task, TaskPhase
from kubechain_common.api.v1alpha1.taskruntoolcall import TaskRunToolCall


def child_names(task: Task, turn: int, count: int) -> list[str]:
    """The names of a turn's calls, in call order."""
    return [tool_call_name(task.name, task.uid, turn, index) for index in range(1, count + 1)]


def pending_names(task: Task) -> list[str]:
    """The names of the calls that the Task waits for."""
    if task.status.phase != TaskPhase.TOOL_CALLS_PENDING or not task.status.context_window:
        return []
    return child_names(task, task.status.turn, len(task.status.context_window[-1].tool_calls or ()))


def is_owner(task: Task, call: TaskRunToolCall) -> bool:
    """Whether the call is the Task's, and not somebody else's under its name."""
    return any(owner.uid == task.uid for owner in call.metadata.owner_references)
