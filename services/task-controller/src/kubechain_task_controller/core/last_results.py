"""What a Task that ends while it waits for its calls keeps of them: the results of those that have ended.

A Task that goes on from it reads them; of the others it reads that the Task ended before. They are worth an attempt and
not more: where they can not be stored, the Task ends without them.
"""

from __future__ import annotations

from dataclasses import replace

from kubechain_common.api.turn_calls import pending_names
from kubechain_task_controller.core.context_window import build_tool_message
from kubechain_task_controller.core.offload import offload_results
from kubechain_task_controller.core.plan import TaskPlan, TaskSnapshot
from kubechain_task_controller.core.steps import keep_window


def keep_results(snapshot: TaskSnapshot, plan: TaskPlan) -> TaskPlan:
    """The plan that ends the Task, with the results that are there in its window, in call order."""
    task, names = snapshot.task, pending_names(snapshot.task)
    if not names or plan.status is None or not snapshot.keeps_results:
        return plan
    window = task.status.context_window
    found = {name: snapshot.children.get(name) for name in names}
    messages = [
        build_tool_message(call, child, snapshot.refused.get(name))
        for call, (name, child) in zip(window[-1].tool_calls or (), found.items(), strict=True)
        if (child is not None and child.finished) or name in snapshot.refused
    ]
    if not messages:
        return plan
    children = {child.spec.tool_call_id: child for child in found.values() if child is not None}
    count = task.status.message_count + len(messages)
    offloaded = offload_results(task, [*window, *messages], children, count=count)
    status = plan.status.model_copy(update=keep_window(offloaded.window, count))
    return replace(plan, status=status, stored=offloaded.stored, keeps_results=True)
