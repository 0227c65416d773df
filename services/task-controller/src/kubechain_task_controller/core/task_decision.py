"""The next step of a Task: the whole state machine, as one pure function of a snapshot.

    (new) -> Pending -> SendContextWindowToLLM <-> ToolCallsPending
                              |                        |
                              +-> FinalAnswer | Failed <+

A turn is one request to the model. A result is matched to its turn by number and by what was said, and applied at most
once. A Task in flight is never reset: when its Agent turns unready it waits where it is. A Task that ends early takes
back what it has under way: the request to the model and the unfinished tool calls, before the status says that it has
ended.
"""

from __future__ import annotations

from dataclasses import replace

from kubechain_common.api.v1alpha1.status import shorten
from kubechain_common.api.v1alpha1.task import TaskPhase
from kubechain_common.messages import LLMResult
from kubechain_common.messages.llm import UNKNOWN_CONVERSATION
from kubechain_common.messages.trouble import PREFIX
from kubechain_task_controller.core.answering import apply_answer
from kubechain_task_controller.core.budget import (
    find_exceeded,
    find_namespace_wait,
    find_unpriced,
    mark_within,
)
from kubechain_task_controller.core.calling import decide_tool_calls
from kubechain_task_controller.core.ending import (
    calls_under_way,
    end_early,
    end_failed,
    fail,
    seconds_left,
)
from kubechain_task_controller.core.last_results import keep_results
from kubechain_task_controller.core.plan import NOTHING, PlannedEvent, TaskPlan, TaskSnapshot
from kubechain_task_controller.core.starting import decide_start
from kubechain_task_controller.core.steps import (
    BUDGET_EXCEEDED,
    SENDING,
    in_flight,
    wait,
    wait_for_namespace,
    wait_in_flight,
)
from kubechain_task_controller.core.tool_calls import calls_to_forbid

_LOOK_AGAIN_SECONDS = 0.5
"""After which a Task looks at its Agent again, whose word may never change."""


def decide_task(snapshot: TaskSnapshot) -> TaskPlan:
    """What is to be done about the Task now."""
    task = snapshot.task
    if task.finished:
        return _decide_finished(snapshot)
    if task.metadata.deleting:
        return TaskPlan(
            consumed=True,
            withdraw=True,
            forbid=calls_to_forbid(task, snapshot.children),
            cancel=calls_under_way(snapshot),
        )
    if task.spec.cancel:
        cancelled = end_early(snapshot, "Cancelled", "The Task was cancelled", event="TaskCancelled")
        return keep_results(snapshot, cancelled)
    left = seconds_left(task, snapshot.now)
    if left is not None and left <= 0:
        limit = task.spec.active_deadline_seconds
        detail = f"The Task was active longer than its deadline of {limit} s"
        return keep_results(snapshot, end_early(snapshot, "DeadlineExceeded", detail, event="DeadlineExceeded"))
    plan = _decide_phase(snapshot)
    if snapshot.agent_unsettled:
        plan = _with_requeue(plan, _LOOK_AGAIN_SECONDS)
    return plan if left is None else _with_requeue(plan, left)


def _decide_phase(snapshot: TaskSnapshot) -> TaskPlan:
    match snapshot.task.status.phase:
        case TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM:
            return _decide_turn(snapshot)
        case TaskPhase.TOOL_CALLS_PENDING:
            return decide_tool_calls(snapshot)
        case _:
            return decide_start(snapshot)


def _decide_finished(snapshot: TaskSnapshot) -> TaskPlan:
    """Nothing but retention, and a call that a crash, or a controller that was not heard of, left under way."""
    task, left_over = snapshot.task, calls_under_way(snapshot)
    ttl, ended = task.spec.ttl_seconds_after_finished, task.status.completion_time
    if ttl is None or ended is None or task.metadata.deleting:
        return TaskPlan(consumed=True, forbid=left_over, cancel=left_over)
    left = ttl - (snapshot.now - ended).total_seconds()
    if left <= 0:
        return TaskPlan(consumed=True, delete=True, forbid=left_over, cancel=left_over)
    return TaskPlan(consumed=True, requeue_after=left, forbid=left_over, cancel=left_over)


def _with_requeue(plan: TaskPlan, seconds: float) -> TaskPlan:
    if plan.requeue_after is not None and plan.requeue_after <= seconds:
        return plan
    return replace(plan, requeue_after=max(seconds, 0.001))


# --- a turn ----------------------------------------------------------------------------------------------------------


def _decide_turn(snapshot: TaskSnapshot) -> TaskPlan:
    result = snapshot.result
    if result is None:
        return _decide_send(snapshot)
    if result.turn < snapshot.task.status.turn:
        return TaskPlan(consumed=True)  # a turn that is already in the window
    if result.turn > snapshot.task.status.turn:
        return NOTHING  # our copy of the Task is behind; the shell gets the one that this belongs to
    if result.conversation not in (snapshot.conversation, UNKNOWN_CONVERSATION):
        # From before a crash and an edit, or a lost future. Whose request is out is to be looked at once more.
        return replace(_decide_send(snapshot), consumed=True, requeue_after=0.0)
    match result.outcome:
        case "Retrying":
            return _show_retry(snapshot, result)
        case "Error":
            return _fail_request(snapshot, result)
        case _:
            return apply_answer(snapshot, result)


def _decide_send(snapshot: TaskSnapshot) -> TaskPlan:
    if snapshot.request_on_its_way:
        return _show_sent(snapshot)
    if not snapshot.agent_ready:
        return wait_in_flight(snapshot)
    exceeded = find_exceeded(snapshot)
    if exceeded:
        return end_early(snapshot, BUDGET_EXCEEDED, exceeded, event=BUDGET_EXCEEDED)
    unpriced = find_unpriced(snapshot)
    if unpriced:
        return wait(snapshot, unpriced, phase=TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM)
    outside = find_namespace_wait(snapshot)
    if outside:
        return wait_for_namespace(snapshot, outside, phase=TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM)
    status = snapshot.task.status
    if status.status == "Ready":
        return TaskPlan(send=True)
    update = {**in_flight(TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM, SENDING), **mark_within(snapshot)}
    return TaskPlan(status.model_copy(update=update), send=True)


def _show_sent(snapshot: TaskSnapshot) -> TaskPlan:
    """The bus took the request after trouble that was told of."""
    status = snapshot.task.status
    if not status.status_detail.startswith(PREFIX):
        return NOTHING
    return TaskPlan(status.model_copy(update={"status_detail": SENDING}))


def _show_retry(snapshot: TaskSnapshot, result: LLMResult) -> TaskPlan:
    reason = result.error.message if result.error else "no reason given"
    if result.retry_in_seconds is None:
        detail = shorten(f"Waiting for the LLM: {reason}")
        event = PlannedEvent("Normal", "Waiting", detail)
    else:
        wait = f"{result.retry_in_seconds:.0f} s"
        failed = f"LLM request failed (attempt {result.attempt}): {reason.removesuffix('.')}"
        detail = shorten(f"{failed}; retrying in {wait}")
        event = PlannedEvent("Warning", "LLMRequestFailed", shorten(f"LLM request failed: {reason}"))
    status = snapshot.task.status.model_copy(update={"status_detail": detail})
    return TaskPlan(status, consumed=True, events=(event,))


def _fail_request(snapshot: TaskSnapshot, result: LLMResult) -> TaskPlan:
    error = result.error
    message = error.message if error else "the gateway gave no reason"
    if error is not None and error.reason:
        return fail(snapshot, error.reason, message, event=error.reason)
    code = error.status_code if error else None
    if code is not None and 400 <= code < 500:
        event = PlannedEvent(
            "Warning", "LLMRequestFailed4xx", shorten(f"LLM request failed with status {code}: {message}")
        )
    else:
        event = PlannedEvent("Warning", "LLMRequestFailed", shorten(f"LLM request failed: {message}"))
    return end_failed(snapshot, "LLMRequestFailed", f"LLM request failed: {message}", message, event)
