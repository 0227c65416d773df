"""What becomes of the answer to a turn: tool calls, the final answer, or another turn to correct it."""

from __future__ import annotations

from dataclasses import replace

from kubechain_common.api.v1alpha1.conversation import Message, MessageToolCall, TokenUsage
from kubechain_common.api.v1alpha1.status import shorten
from kubechain_common.api.v1alpha1.task import ANSWER_INCOMPLETE, TaskPhase
from kubechain_common.messages import LLMResult, ObjectRef
from kubechain_task_controller.core.budget import find_exceeded
from kubechain_task_controller.core.calling import TOOLS_PENDING, find_missing_children
from kubechain_task_controller.core.context_window import normalise_answer
from kubechain_task_controller.core.ending import (
    end_failed,
    ended,
)
from kubechain_task_controller.core.next_turn import go_on
from kubechain_task_controller.core.offload import offload_answer, offload_results
from kubechain_task_controller.core.overflow import count_before, policy_of
from kubechain_task_controller.core.periods import note_turn
from kubechain_task_controller.core.plan import PlannedEvent, TaskPlan, TaskSnapshot, Turn
from kubechain_task_controller.core.response_format import (
    CORRECTION_ASKED,
    FORMAT_VIOLATED,
    NOT_FITTING,
    build_correction,
    find_problem,
    mark_fitting,
    mark_refused,
    was_refused,
)
from kubechain_task_controller.core.spent import add_cost, price
from kubechain_task_controller.core.steps import (
    end_at_max_turns,
    in_flight,
    is_last_turn,
    keep_window,
    stop_at_budget,
)
from kubechain_task_controller.core.summary import apply_summary
from kubechain_task_controller.core.window_size import count_answer, estimate_messages

ANSWERED = "LLM final response received"


def apply_answer(snapshot: TaskSnapshot, result: LLMResult) -> TaskPlan:
    """What the model said, counted and priced, and what follows from it."""
    status = snapshot.task.status
    turn = Turn(result.usage or TokenUsage(), price(result.usage or TokenUsage(), snapshot.answer_prices))
    answer = normalise_answer(result.message or Message(role="assistant"), result.turn, result.usage)
    cost, not_added = add_cost(status, turn.cost)
    used = {
        "token_usage": (status.token_usage or TokenUsage()) + turn.usage,
        **cost,
        **note_turn(status, snapshot.now),
    }
    if status.summary_keeps is not None:
        plan = apply_summary(snapshot, status.model_copy(update=used), answer, result.incomplete)
    else:
        plan = _apply_message(snapshot, answer, used, result.incomplete)
    if not_added:
        plan = replace(plan, events=(*plan.events, PlannedEvent("Warning", "CostNotAdded", not_added)))
    if result.answered_by is not None:
        plan = replace(plan, events=(*plan.events, _tell_fallback(snapshot, result, result.answered_by)))
    return replace(plan, answered=turn)


def _apply_message(snapshot: TaskSnapshot, answer: Message, used: dict[str, object], incomplete: str) -> TaskPlan:
    task = snapshot.task
    offloaded = offload_answer(task, task.status.context_window, answer)
    update = {**used, **keep_window(offloaded.window, task.status.message_count + 1)}
    if policy_of(snapshot) is not None:
        update["window_tokens"] = count_answer(count_before(snapshot), answer, answer.usage)
    if answer.tool_calls:
        plan = begin_tool_calls(snapshot, answer.tool_calls, update)
    else:
        plan = _judge_answer(snapshot, answer, update, incomplete)
    # A plan that goes on with the next turn stores more than the answer.
    return replace(plan, stored=plan.stored or offloaded.stored)


def _tell_fallback(snapshot: TaskSnapshot, result: LLMResult, other: ObjectRef) -> PlannedEvent:
    name = snapshot.asked_llm.name if snapshot.asked_llm is not None else ""
    told = f'LLM "{other.name}" answered in place of "{name}": {result.fallback_reason}'
    return PlannedEvent("Warning", "LLMFallbackUsed", shorten(told))


def _judge_answer(snapshot: TaskSnapshot, answer: Message, update: dict[str, object], incomplete: str) -> TaskPlan:
    problem = find_problem(snapshot, answer)
    if not problem:
        return _finish_with(snapshot, answer, update, incomplete)
    if incomplete:
        problem = f"{problem} ({incomplete})"
    status = snapshot.task.status
    if was_refused(status):
        return _end_unfit(snapshot, answer, update, problem, " a second time")
    if is_last_turn(snapshot):
        return _end_unfit(snapshot, answer, update, problem, ", and maxTurns leaves no turn to correct it")
    exceeded = find_exceeded(snapshot, status.model_copy(update=update))
    if exceeded:
        return _end_unfit(snapshot, answer, update, problem, f", and no budget is left to correct it ({exceeded})")
    return _refuse_answer(snapshot, answer, update, problem)


def _finish_with(snapshot: TaskSnapshot, answer: Message, update: dict[str, object], incomplete: str) -> TaskPlan:
    """An incomplete answer is still the answer, but nobody is to take it for the whole."""
    detail, reason = ANSWERED, "FinalAnswer"
    events = (PlannedEvent("Normal", "LLMFinalAnswer", "LLM response received successfully"),)
    if incomplete:
        detail, reason = shorten(f"{ANSWERED}, but {incomplete}"), ANSWER_INCOMPLETE
        events = (PlannedEvent("Warning", "LLMFinalAnswerIncomplete", detail),)
    status = snapshot.task.status.model_copy(
        update={
            **update,
            **in_flight(TaskPhase.FINAL_ANSWER, detail),
            **ended(snapshot, "Complete", reason, detail),
            "output": answer.content,
        }
    )
    return TaskPlan(mark_fitting(snapshot, status), consumed=True, events=events)


def _refuse_answer(snapshot: TaskSnapshot, answer: Message, update: dict[str, object], problem: str) -> TaskPlan:
    """An answer that breaks the Agent's responseFormat goes back to the model once: a turn that everybody can see."""
    status, correction = snapshot.task.status, build_correction(problem)
    count = status.message_count + 2
    offloaded = offload_results(snapshot.task, [*status.context_window, answer, correction], {}, count=count)
    detail = shorten(f"{NOT_FITTING}, asking once more: {problem}")
    refused = status.model_copy(update={**update, **mark_refused(snapshot, problem), "status_detail": detail})
    tokens = refused.window_tokens
    if tokens is not None:
        tokens += estimate_messages([correction])
    event = PlannedEvent("Warning", CORRECTION_ASKED, detail)
    return go_on(snapshot, refused, offloaded, count, tokens, events=(event,))


def _end_unfit(snapshot: TaskSnapshot, answer: Message, update: dict[str, object], problem: str, why: str) -> TaskPlan:
    """The text is kept: somebody may be able to read it."""
    detail = f"{NOT_FITTING}{why}: {problem}"
    status = snapshot.task.status.model_copy(update={**update, "output": answer.content})
    event = PlannedEvent("Warning", FORMAT_VIOLATED, shorten(detail))
    return end_failed(snapshot, FORMAT_VIOLATED, detail, detail, event, status)


def begin_tool_calls(snapshot: TaskSnapshot, calls: list[MessageToolCall], update: dict[str, object]) -> TaskPlan:
    task = snapshot.task
    answered = task.status.model_copy(update=update)
    if is_last_turn(snapshot):
        return end_at_max_turns(snapshot, answered)
    exceeded = find_exceeded(snapshot, answered)
    if exceeded:  # nobody would read what its calls give
        return stop_at_budget(snapshot, exceeded, answered)
    status = task.status.model_copy(update={**update, **in_flight(TaskPhase.TOOL_CALLS_PENDING, TOOLS_PENDING)})
    children, events = find_missing_children(snapshot, calls, requested_at=snapshot.now)
    pending = PlannedEvent("Normal", "ToolCallsPending", TOOLS_PENDING)
    return TaskPlan(status, consumed=True, children=children, events=(pending, *events))
