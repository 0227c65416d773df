"""What becomes of the answer to a turn that asked for a summary."""

from __future__ import annotations

from dataclasses import replace

from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.status import shorten
from kubechain_common.api.v1alpha1.task import TaskStatus
from kubechain_task_controller.core.budget import find_exceeded
from kubechain_task_controller.core.ending import end_failed
from kubechain_task_controller.core.next_turn import WINDOW_EXCEEDED, go_on
from kubechain_task_controller.core.offload import offload_results
from kubechain_task_controller.core.overflow import count_view
from kubechain_task_controller.core.plan import PlannedEvent, TaskPlan, TaskSnapshot
from kubechain_task_controller.core.steps import keep_window, stop_at_budget

SUMMARISED = "ContextWindowSummarised"
NO_SUMMARY = "The context window is full, and the LLM gave no summary of it"


def apply_summary(snapshot: TaskSnapshot, status: TaskStatus, answer: Message, incomplete: str) -> TaskPlan:
    """The turn after the summary; ``status`` has its use counted already.

    Tool calls beside the text are not made: nobody asked for them.
    """
    text, keeps = answer.content.strip(), status.summary_keeps or 0
    if not text:
        event = PlannedEvent("Warning", WINDOW_EXCEEDED, NO_SUMMARY)
        return end_failed(snapshot, WINDOW_EXCEEDED, NO_SUMMARY, NO_SUMMARY, event, status)
    summary = Message(role="summary", content=text, usage=answer.usage, keeps=keeps)
    window, count = [*status.context_window, summary], status.message_count + 1
    offloaded = offload_results(snapshot.task, window, {}, count=count)
    exceeded = find_exceeded(snapshot, status)
    if exceeded:
        whole = status.model_copy(update=keep_window(offloaded.window, count))
        return replace(stop_at_budget(snapshot, exceeded, whole), stored=offloaded.stored)
    tokens = count_view(snapshot, window)
    before = f" instead of {status.window_tokens:,}" if status.window_tokens is not None else ""
    detail = f"The LLM goes on with a summary of the conversation: about {tokens:,} tokens{before}"
    if incomplete:
        detail = shorten(f"{detail}; but {incomplete}")
    event = PlannedEvent("Warning" if incomplete else "Normal", SUMMARISED, detail)
    told = status.model_copy(update={"status_detail": detail})
    return go_on(snapshot, told, offloaded, count, tokens, events=(event,), summarised=True)
