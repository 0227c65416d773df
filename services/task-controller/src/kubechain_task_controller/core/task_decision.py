"""The next step of a Task: the whole state machine, as one pure function of a snapshot.

    (new) -> Pending -> SendContextWindowToLLM <-> ToolCallsPending
                              |                        |
                              +-> FinalAnswer | Failed <+

A turn is one request to the model. The status says which turn a Task stands in before its request is published, so a
result is matched to its turn by number and applied at most once. A Task in flight is never reset: when its Agent
turns unready it waits where it is. A Task that ends early takes back what it has under way: the request to the model
and the unfinished tool calls, before the status says that it has ended.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.api.v1alpha1.conversation import Message, MessageToolCall, TokenUsage
from kubechain_common.api.v1alpha1.status import shorten
from kubechain_common.api.v1alpha1.task import ANSWER_INCOMPLETE, DEFAULT_MAX_TURNS, TaskPhase, TaskStatus
from kubechain_common.messages import LLMResult
from kubechain_common.messages.trouble import PREFIX
from kubechain_task_controller.core.budget import (
    UNREADABLE,
    USED_UP,
    find_exceeded,
    find_namespace_wait,
    find_unpriced,
    mark_outside,
    mark_within,
)
from kubechain_task_controller.core.context_window import (
    build_initial_window,
    build_tool_message,
    find_unanswered_call,
    normalise_answer,
    preview_of,
)
from kubechain_task_controller.core.ending import (
    awaits_llm,
    calls_under_way,
    end_early,
    end_failed,
    ended,
    fail,
    seconds_left,
)
from kubechain_task_controller.core.offload import offload_answer, offload_results, offload_start
from kubechain_task_controller.core.periods import note_turn
from kubechain_task_controller.core.plan import NOTHING, PlannedEvent, TaskPlan, TaskSnapshot, Turn
from kubechain_task_controller.core.spent import add_cost, price
from kubechain_task_controller.core.tool_calls import build_tool_call, calls_to_forbid, child_names

SENDING = "Sending context window to LLM"
ANSWERED = "LLM final response received"
TOOLS_DONE = "All tool calls completed, ready to send tool results to LLM"

BUDGET_EXCEEDED = "BudgetExceeded"

_SENDING_EVENT = PlannedEvent("Normal", "SendingContextWindowToLLM", SENDING)


def decide_task(snapshot: TaskSnapshot) -> TaskPlan:
    """What is to be done about the Task now."""
    task = snapshot.task
    if task.finished:
        return _decide_finished(snapshot)
    if task.metadata.deleting:
        return TaskPlan(
            consumed=True,
            withdraw=awaits_llm(task),
            forbid=calls_to_forbid(task, snapshot.children),
            cancel=calls_under_way(snapshot),
        )
    if task.spec.cancel:
        return end_early(snapshot, "Cancelled", "The Task was cancelled", event="TaskCancelled")
    left = seconds_left(task, snapshot.now)
    if left is not None and left <= 0:
        limit = task.spec.active_deadline_seconds
        detail = f"The Task was active longer than its deadline of {limit} s"
        return end_early(snapshot, "DeadlineExceeded", detail, event="DeadlineExceeded")
    plan = _decide_phase(snapshot)
    return plan if left is None else _with_requeue(plan, left)


def _decide_phase(snapshot: TaskSnapshot) -> TaskPlan:
    match snapshot.task.status.phase:
        case TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM:
            return _decide_turn(snapshot)
        case TaskPhase.TOOL_CALLS_PENDING:
            return _decide_tool_calls(snapshot)
        case _:
            return _decide_start(snapshot)


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


# --- start -----------------------------------------------------------------------------------------------------------


def _decide_start(snapshot: TaskSnapshot) -> TaskPlan:
    waiting_for = _missing_for_start(snapshot) or find_unpriced(snapshot)
    if waiting_for:
        return _wait(snapshot, waiting_for, phase=TaskPhase.PENDING)
    exceeded = find_exceeded(snapshot)
    if exceeded:
        return fail(snapshot, BUDGET_EXCEEDED, exceeded, event=BUDGET_EXCEEDED)
    outside = find_namespace_wait(snapshot)
    if outside:
        return _wait_for_namespace(snapshot, outside, phase=TaskPhase.PENDING)
    agent = snapshot.agent
    assert agent is not None  # _missing_for_start says so
    problem = _problem_of_source(snapshot)
    if problem is not None:
        return fail(snapshot, "InvalidContextWindowFrom", problem, event="ValidationFailed")
    problem = find_unanswered_call(snapshot.task.spec.context_window or [])
    if problem is not None:
        return fail(snapshot, "InvalidContextWindow", problem, event="ValidationFailed")
    window = build_initial_window(snapshot.task, agent, snapshot.source)
    offloaded = offload_start(snapshot.task, window)
    status = snapshot.task.status.model_copy(
        update={
            **_in_flight(TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM, SENDING),
            "turn": 1,
            "start_time": snapshot.task.status.start_time or snapshot.now,
            "user_msg_preview": preview_of(window),
            "span_context": snapshot.new_span,
            "observed_generation": snapshot.task.metadata.generation,
            **_window(offloaded.window, len(window)),
            **mark_within(snapshot),
        }
    )
    validated = PlannedEvent("Normal", "ValidationSucceeded", "Task validation succeeded")
    plan = TaskPlan(status, consumed=True, send=True, fresh=True, events=(validated, _SENDING_EVENT))
    return replace(plan, stored=offloaded.stored, texts=offloaded.texts)


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


def _wait(snapshot: TaskSnapshot, detail: str, *, phase: TaskPhase) -> TaskPlan:
    """Say what the Task waits for; whatever arrives wakes it."""
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


def _wait_for_namespace(snapshot: TaskSnapshot, detail: str, *, phase: TaskPhase) -> TaskPlan:
    """Until the next period begins, if nobody gives the namespace a larger budget before."""
    plan = _wait(snapshot, detail, phase=phase)
    budget, reason = snapshot.namespace_budget, UNREADABLE
    if budget is not None and not budget.problem:
        plan, reason = replace(plan, requeue_after=budget.seconds_left(snapshot.now)), USED_UP
    if plan.status is None:
        return plan
    status = plan.status.model_copy(update=mark_outside(snapshot, reason, detail))
    return replace(plan, status=status, events=(PlannedEvent("Warning", reason, detail),))


# --- a turn ----------------------------------------------------------------------------------------------------------


def _decide_turn(snapshot: TaskSnapshot) -> TaskPlan:
    result = snapshot.result
    if result is None:
        return _decide_send(snapshot)
    if result.turn < snapshot.task.status.turn:
        return TaskPlan(consumed=True)  # a turn that is already in the window
    if result.turn > snapshot.task.status.turn:
        return NOTHING  # our copy of the Task is behind; the watch brings the one that this belongs to
    match result.outcome:
        case "Retrying":
            return _show_retry(snapshot, result)
        case "Error":
            return _fail_request(snapshot, result)
        case _:
            return _apply_answer(snapshot, result)


def _decide_send(snapshot: TaskSnapshot) -> TaskPlan:
    if snapshot.request_on_its_way:
        return _show_sent(snapshot)
    if not snapshot.agent_ready:
        return _wait_in_flight(snapshot)
    exceeded = find_exceeded(snapshot)
    if exceeded:
        return end_early(snapshot, BUDGET_EXCEEDED, exceeded, event=BUDGET_EXCEEDED)
    unpriced = find_unpriced(snapshot)
    if unpriced:
        return _wait(snapshot, unpriced, phase=TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM)
    outside = find_namespace_wait(snapshot)
    if outside:
        return _wait_for_namespace(snapshot, outside, phase=TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM)
    status = snapshot.task.status
    if status.status == "Ready":
        return TaskPlan(send=True)
    update = {**_in_flight(TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM, SENDING), **mark_within(snapshot)}
    return TaskPlan(status.model_copy(update=update), send=True)


def _show_sent(snapshot: TaskSnapshot) -> TaskPlan:
    """The bus took the request after trouble that was told of."""
    status = snapshot.task.status
    if not status.status_detail.startswith(PREFIX):
        return NOTHING
    return TaskPlan(status.model_copy(update={"status_detail": SENDING}))


def _wait_in_flight(snapshot: TaskSnapshot) -> TaskPlan:
    phase = snapshot.task.status.phase
    assert phase is not None
    name = snapshot.task.spec.agent_ref.name
    detail = "Waiting for Agent to exist" if snapshot.agent is None else f'Waiting for agent "{name}" to become ready'
    return _wait(snapshot, detail, phase=phase)


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


def _apply_answer(snapshot: TaskSnapshot, result: LLMResult) -> TaskPlan:
    task = snapshot.task
    turn = Turn(result.usage or TokenUsage(), price(result.usage or TokenUsage(), snapshot.prices))
    answer = normalise_answer(result.message or Message(role="assistant"), result.turn, result.usage)
    offloaded = offload_answer(task, task.status.context_window, answer)
    cost, not_added = add_cost(task.status, turn.cost)
    update = {
        **_window(offloaded.window, task.status.message_count + 1),
        "token_usage": (task.status.token_usage or TokenUsage()) + turn.usage,
        **cost,
        **note_turn(task.status, snapshot.now),
    }
    if answer.tool_calls:
        plan = _begin_tool_calls(snapshot, answer.tool_calls, update)
    else:
        plan = _finish_with(snapshot, answer, update, result.incomplete)
    if not_added:
        plan = replace(plan, events=(*plan.events, PlannedEvent("Warning", "CostNotAdded", not_added)))
    return replace(plan, stored=offloaded.stored, answered=turn)


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
            **_in_flight(TaskPhase.FINAL_ANSWER, detail),
            **ended(snapshot, "Complete", reason, detail),
            "output": answer.content,
        }
    )
    return TaskPlan(status, consumed=True, events=events)


def _begin_tool_calls(snapshot: TaskSnapshot, calls: list[MessageToolCall], update: dict[str, object]) -> TaskPlan:
    task = snapshot.task
    limit = _max_turns(snapshot)
    if task.status.turn >= limit:
        status = task.status.model_copy(update=update)
        reached = f"The Task reached its limit of {limit} turns (maxTurns) without a final answer"
        event = PlannedEvent("Warning", "MaxTurnsExceeded", reached)
        return end_failed(snapshot, "MaxTurnsExceeded", reached, reached, event, status)
    exceeded = find_exceeded(snapshot, task.status.model_copy(update=update))
    if exceeded:  # nobody would read what its calls give
        return _stop_at_budget(snapshot, exceeded, task.status.model_copy(update=update))
    detail = "LLM response received, tool calls pending"
    status = task.status.model_copy(update={**update, **_in_flight(TaskPhase.TOOL_CALLS_PENDING, detail)})
    children, events = _missing_children(snapshot, calls, requested_at=snapshot.now)
    pending = PlannedEvent("Normal", "ToolCallsPending", detail)
    return TaskPlan(status, consumed=True, children=children, events=(pending, *events))


def _stop_at_budget(snapshot: TaskSnapshot, exceeded: str, status: TaskStatus) -> TaskPlan:
    event = PlannedEvent("Warning", BUDGET_EXCEEDED, exceeded)
    return end_failed(snapshot, BUDGET_EXCEEDED, exceeded, exceeded, event, status)


def _max_turns(snapshot: TaskSnapshot) -> int:
    own = snapshot.task.spec.max_turns
    agents = snapshot.agent.spec.max_turns if snapshot.agent else None
    return own or agents or DEFAULT_MAX_TURNS


# --- tool calls ------------------------------------------------------------------------------------------------------


def _decide_tool_calls(snapshot: TaskSnapshot) -> TaskPlan:
    task = snapshot.task
    # This turn has its answer. A later turn's means that our copy of the Task is behind.
    consumed = snapshot.result is not None and snapshot.result.turn <= task.status.turn
    window = task.status.context_window
    calls = (window[-1].tool_calls if window else None) or []
    names = child_names(task, task.status.turn, len(calls))
    # One that is made later may be made again, and have run before: to a host that lost its record of started calls
    # it must not look younger than that record.
    children, events = _missing_children(snapshot, calls, requested_at=task.status.start_time or snapshot.now)
    if children:
        return TaskPlan(consumed=consumed, children=children, events=events)
    found = [snapshot.children.get(name) for name in names]
    if any(child is None and name not in snapshot.refused for child, name in zip(found, names, strict=True)):
        waiting = _wait_in_flight(snapshot)  # a tool that the agent does not offer while it is unready
        return TaskPlan(waiting.status, consumed=consumed, events=waiting.events)
    if any(child is not None and not child.finished for child in found):
        return TaskPlan(consumed=consumed)
    messages = [
        build_tool_message(call, child, snapshot.refused.get(name))
        for call, child, name in zip(calls, found, names, strict=True)
    ]
    return _next_turn(snapshot, messages, consumed)


def _missing_children(
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
    count = status.message_count + len(messages)
    children = {child.spec.tool_call_id: child for child in snapshot.children.values()}
    offloaded = offload_results(snapshot.task, [*status.context_window, *messages], children, count=count)
    exceeded = find_exceeded(snapshot)
    if exceeded:  # by a sub-agent; the turn that is not made has no number
        whole = status.model_copy(update=_window(offloaded.window, count))
        return replace(_stop_at_budget(snapshot, exceeded, whole), stored=offloaded.stored)
    updated = status.model_copy(
        update={
            **_in_flight(TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM, TOOLS_DONE),
            **_window(offloaded.window, count),
            "turn": status.turn + 1,
        }
    )
    done = PlannedEvent("Normal", "AllToolCallsCompleted", TOOLS_DONE)
    plan = TaskPlan(updated, consumed=consumed, events=(done,), stored=offloaded.stored, texts=offloaded.texts)
    if not snapshot.agent_ready or find_unpriced(snapshot) or find_namespace_wait(snapshot):
        return plan  # the next reconcile says what it waits for
    return replace(plan, send=True, fresh=True, events=(done, _SENDING_EVENT))


# --- parts of a status -----------------------------------------------------------------------------------------------


def _in_flight(phase: TaskPhase, detail: str) -> dict[str, object]:
    return {"phase": phase, "ready": True, "status": "Ready", "status_detail": detail}


def _window(window: list[Message], count: int) -> dict[str, object]:
    """``count`` is the number of messages in the whole conversation, however many of them the window shows."""
    return {"context_window": window, "message_count": count}
