"""The Task's state machine, state by state."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kubechain_common.api.turn_calls import child_names
from kubechain_common.api.v1alpha1 import Task
from kubechain_common.api.v1alpha1.conversation import (
    Message,
    MessageToolCall,
    MessageUsage,
    TokenUsage,
    ToolCallFunction,
)
from kubechain_common.api.v1alpha1.money import LLMPrices
from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.api.v1alpha1.task import TaskPhase
from kubechain_common.messages import LLMCallError, LLMResult, ObjectRef
from kubechain_common.messages.trouble import PREFIX, Trouble
from kubechain_common.testing.builders import NOW, build_agent, build_call, build_llm, build_mcp_server, build_task
from kubechain_task_controller.core.offload import WINDOW_MESSAGES
from kubechain_task_controller.core.plan import NOTHING, TaskPlan, TaskSnapshot
from kubechain_task_controller.core.setback import decide_kept, decide_refused, decide_unstorable
from kubechain_task_controller.core.source import Source
from kubechain_task_controller.core.task_decision import decide_task
from kubechain_task_controller.core.tool_catalog import build_catalog
from kubechain_task_controller.core.unreadable import build_unreadable_result

LLM_REF = ObjectRef.of(build_llm())
AGENT = build_agent(mcpServers=[{"name": "fetch"}])
CATALOG = build_catalog(AGENT, {"fetch": build_mcp_server(tools=("fetch", "head"))}, {}, {})


def snapshot(task: Task, **parts: Any) -> TaskSnapshot:
    defaults: dict[str, Any] = {
        "agent": AGENT,
        "llm": LLM_REF,
        "catalog": CATALOG,
        "new_span": SpanContext(trace_id="t", span_id="s"),
    }
    return TaskSnapshot(task=task, now=NOW, **{**defaults, **parts})


def reasons(plan: TaskPlan) -> list[str]:
    return [event.reason for event in plan.events]


def carried_out(task: Task, plan: TaskPlan) -> Task:
    """The Task as the API server would hold it after the plan."""
    return task.model_copy(update={"status": plan.status}) if plan.status else task


def started(**spec: Any) -> Task:
    task = build_task(**spec)
    return carried_out(task, decide_task(snapshot(task)))


def answer(*tools: str, content: str = "", turn: int = 1, ids: tuple[str, ...] | None = None) -> LLMResult:
    names = ids or tuple(f"call_{i}" for i in range(len(tools)))
    calls = [
        MessageToolCall(id=call_id, function=ToolCallFunction(name=tool, arguments='{"url": "x"}'))
        for call_id, tool in zip(names, tools, strict=True)
    ]
    message = Message(role="assistant", content=content, tool_calls=calls or None)
    usage = TokenUsage(input_tokens=10, output_tokens=5, total_tokens=15)
    return LLMResult(task=ObjectRef.of(build_task()), turn=turn, outcome="Message", message=message, usage=usage)


def with_tool_calls(*tools: str, **spec: Any) -> Task:
    task = started(**spec)
    return carried_out(task, decide_task(snapshot(task, result=answer(*tools))))


# --- start


def test_a_task_without_its_agent_waits_for_it_to_exist() -> None:
    plan = decide_task(snapshot(build_task(), agent=None, llm=None))
    assert plan.status is not None
    assert (plan.status.phase, plan.status.status, plan.status.ready) == (TaskPhase.PENDING, "Pending", False)
    assert plan.status.status_detail == "Waiting for Agent to exist"
    assert [(e.type, e.reason, e.message) for e in plan.events] == [("Normal", "Waiting", "Waiting for Agent to exist")]
    assert not plan.send


def test_waiting_is_said_once() -> None:
    task = build_task()
    waiting = carried_out(task, decide_task(snapshot(task, agent=None, llm=None)))
    assert decide_task(snapshot(waiting, agent=None, llm=None)) == NOTHING


@pytest.mark.parametrize(
    "agent",
    [build_agent(ready=False), build_agent(generation=2)],
    ids=["not ready", "ready, but for an older spec"],
)
def test_a_task_waits_for_its_agent_to_become_ready(agent: Any) -> None:
    plan = decide_task(snapshot(build_task(), agent=agent))
    assert plan.status is not None
    assert plan.status.status_detail == 'Waiting for agent "my-assistant" to become ready'


def test_the_first_status_write_holds_all_that_the_first_turn_needs() -> None:
    plan = decide_task(snapshot(build_task()))
    status = plan.status
    assert status is not None
    assert status.phase == TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM
    assert [(m.role, m.content) for m in status.context_window] == [
        ("system", "You are a helpful assistant."),
        ("user", "What is the capital of the moon?"),
    ]
    assert (status.turn, status.message_count, status.start_time) == (1, 2, NOW)
    assert status.span_context == SpanContext(trace_id="t", span_id="s")
    assert (plan.send, plan.fresh) == (True, True)
    assert [(e.reason, e.message) for e in plan.events] == [
        ("ValidationSucceeded", "Task validation succeeded"),
        ("SendingContextWindowToLLM", "Sending context window to LLM"),
    ]


def test_a_long_user_message_is_previewed() -> None:
    status = started(userMessage="x" * 51).status
    assert status.user_msg_preview == "x" * 47 + "..."
    assert started(userMessage="x" * 50).status.user_msg_preview == "x" * 50


def test_a_given_conversation_gets_the_agents_system_message_unless_it_has_its_own() -> None:
    window = [{"role": "user", "content": "hi"}]
    assert [m.role for m in started(contextWindow=window).status.context_window] == ["system", "user"]
    own = [{"role": "system", "content": "mine"}, *window]
    assert started(contextWindow=own).status.context_window[0].content == "mine"


def test_a_task_goes_on_from_the_conversation_of_another() -> None:
    source = with_tool_calls("fetch__fetch").model_copy(deep=True)
    source.status.phase = TaskPhase.FINAL_ANSWER
    task = build_task("next", contextWindowFrom={"taskRef": {"name": "hello"}}, userMessage="and then?")
    status = decide_task(snapshot(task, source=Source(source, source.status.context_window))).status
    assert status is not None
    assert [m.role for m in status.context_window] == ["system", "user", "assistant", "tool", "user"]
    assert status.context_window[3].content == "Error: the Task ended before this tool call was answered"
    assert status.context_window[-1].content == "and then?"


def test_a_task_that_goes_on_waits_for_the_other_to_finish() -> None:
    task = build_task("next", contextWindowFrom={"taskRef": {"name": "hello"}}, userMessage="and then?")
    missing = decide_task(snapshot(task)).status
    running = decide_task(snapshot(task, source=Source(started()))).status
    assert missing is not None
    assert running is not None
    assert missing.status_detail == 'Waiting for Task "hello" to exist'
    assert running.status_detail == 'Waiting for Task "hello" to finish'


def going_on(**origin: Any) -> Task:
    return build_task("next", contextWindowFrom={"taskRef": {"name": "hello"}, **origin}, userMessage="and then?")


def finished_source() -> Task:
    task = started()
    return carried_out(task, decide_task(snapshot(task, result=answer(content="It has none."))))


def test_a_fork_beyond_the_last_turn_fails_with_a_sentence() -> None:
    source = finished_source()
    whole = Source(source, source.status.context_window)
    assert decide_task(snapshot(going_on(turn=1), source=whole)).send
    plan = decide_task(snapshot(going_on(turn=2), source=whole))
    assert plan.status is not None
    assert plan.status.error == 'contextWindowFrom.turn is 2, but Task "hello" ended in turn 1'
    assert [c.reason for c in plan.status.conditions] == ["InvalidContextWindowFrom"]
    assert reasons(plan) == ["ValidationFailed"]
    assert not plan.send


GIVEN = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "and?"},
]


def fork_of(source: Task, turn: int) -> str:
    """The conversation of a Task that goes on from this turn of the source, without its system message."""
    plan = decide_task(snapshot(going_on(turn=turn), source=Source(source, source.status.context_window)))
    assert plan.status is not None
    return " ".join(m.content for m in plan.status.context_window[1:])


def with_two_turns(task: Task, *, answered: bool) -> Task:
    """It calls a tool in its first turn; the second gives the answer, or fails."""
    task = carried_out(task, decide_task(snapshot(task, result=answer("fetch__fetch", content="one"))))
    name = child_names(task, 1, 1)[0]
    done = {name: build_call(name, status={"phase": "Succeeded", "result": "r"})}
    task = carried_out(task, decide_task(snapshot(task, children=done)))
    error = LLMCallError(message="no", status_code=400)
    failed = LLMResult(task=ObjectRef.of(build_task()), turn=2, outcome="Error", error=error)
    ended = decide_task(snapshot(task, result=answer(content="two", turn=2) if answered else failed))
    return carried_out(task, ended)


@pytest.mark.parametrize("answered", [False, True])
def test_a_fork_counts_the_sources_own_turns_whether_the_last_was_answered_or_not(answered: bool) -> None:
    source = with_two_turns(started(contextWindow=GIVEN), answered=answered)
    assert (source.finished, source.status.turn, source.status.inherited_messages) == (True, 2, 4)
    assert fork_of(source, 1) == "hi hello and? one r and then?"
    assert fork_of(source, 2) == f"hi hello and? one r {'two ' if answered else ''}and then?"
    begun_by_older = source.model_copy(update={"status": source.status.model_copy(update={"inherited_messages": None})})
    assert not answered or fork_of(begun_by_older, 1) == "hi hello and? one r and then?"


@pytest.mark.parametrize("answered", [False, True])
def test_a_fork_of_a_fork_counts_from_where_the_second_one_began(answered: bool) -> None:
    first = finished_source()
    begun = going_on()
    begun = carried_out(begun, decide_task(snapshot(begun, source=Source(first, first.status.context_window))))
    source = with_two_turns(begun, answered=answered)
    assert source.status.inherited_messages == 4
    assert fork_of(source, 1).endswith("It has none. and then? one r and then?")


def test_a_task_that_begins_anew_says_nothing_of_what_was_before_it() -> None:
    assert started().status.inherited_messages is None
    assert started(contextWindow=[{"role": "user", "content": "hi"}]).status.inherited_messages is None


def test_a_source_that_lost_a_text_fails_with_a_sentence_that_names_it() -> None:
    source = Source(finished_source(), lost='TaskRunToolCall "x" is gone')
    status = decide_task(snapshot(going_on(), source=source)).status
    assert status is not None
    assert status.error == 'The conversation of Task "hello" is not complete: TaskRunToolCall "x" is gone'


def test_provider_data_that_no_provider_could_be_sent_is_refused_with_a_sentence() -> None:
    deep = json.loads("[" * 70 + "]" * 70)
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "providerData": {"x": deep}}]
    status = decide_task(snapshot(build_task(userMessage=None, contextWindow=said))).status
    assert status is not None
    assert status.phase == "Failed"
    assert status.error == "contextWindow[1].providerData is nested more than 64 levels deep"


def test_a_long_question_is_stored_before_the_status_that_points_at_it() -> None:
    plan = decide_task(snapshot(build_task(userMessage="q" * 5000)))
    assert plan.status is not None
    (stored,) = plan.stored
    source = plan.status.context_window[1].content_from
    assert source is not None
    assert source.config_map_key_ref is not None
    assert (source.config_map_key_ref.name, stored.text) == (stored.name, "q" * 5000)
    assert plan.texts == {f"configmap/{stored.name}/content": "q" * 5000}


def test_a_text_that_may_not_be_stored_now_is_waited_for_and_loses_no_answer() -> None:
    task = started()
    refused = snapshot(task, result=answer("fetch__fetch", content="r" * 5000))
    plan = decide_unstorable(refused, "exceeded quota")
    assert plan.status is not None
    assert plan.status.status_detail == "Waiting to store the conversation: exceeded quota"
    assert plan.status.context_window == task.status.context_window
    assert (plan.consumed, plan.requeue_after) == (False, 10)
    assert reasons(plan) == ["ContextWindowNotStored"]
    again = decide_unstorable(replace(refused, task=carried_out(task, plan)), "exceeded quota")
    assert (again.status, again.events, again.requeue_after) == (None, (), 10)


def test_a_task_that_can_not_begin_for_lack_of_room_has_its_deadline_all_the_same() -> None:
    task = build_task(activeDeadlineSeconds=4)
    plan = decide_unstorable(snapshot(task), "exceeded quota")
    assert plan.status is not None
    assert (plan.status.phase, plan.status.start_time, plan.requeue_after) == (TaskPhase.PENDING, NOW, 4)
    late = replace(snapshot(carried_out(task, plan)), now=NOW + timedelta(seconds=4))
    ended = decide_task(late)
    assert ended.status is not None
    assert ended.status.phase == TaskPhase.FAILED


# --- a turn


def test_a_request_that_is_on_its_way_is_not_sent_again() -> None:
    assert decide_task(snapshot(started(), request_on_its_way=True)) == NOTHING


def test_after_a_restart_the_request_is_looked_for_and_sent_without_a_write() -> None:
    plan = decide_task(snapshot(started()))
    assert plan == TaskPlan(send=True)


def test_a_final_answer_ends_the_task() -> None:
    plan = decide_task(snapshot(started(), result=answer(content="It has none.")))
    status = plan.status
    assert status is not None
    assert (status.phase, status.ready, status.status) == (TaskPhase.FINAL_ANSWER, True, "Ready")
    assert (status.output, status.status_detail) == ("It has none.", "LLM final response received")
    assert status.completion_time == NOW
    assert status.token_usage == TokenUsage(input_tokens=10, output_tokens=5, total_tokens=15)
    assert [(c.type, c.status) for c in status.conditions] == [("Complete", "True")]
    assert [(e.reason, e.message) for e in plan.events] == [("LLMFinalAnswer", "LLM response received successfully")]
    assert plan.consumed


PRICES = LLMPrices(input_per_million="2.50", cached_input_per_million="1.25", output_per_million="10")


def test_an_answer_is_priced_when_it_is_applied() -> None:
    first = decide_task(snapshot(started(), result=answer("fetch__fetch"), answer_prices=PRICES))
    assert first.status is not None
    assert (first.status.cost, first.status.currency) == ("0.000075", "USD")
    assert first.answered is not None
    assert str(first.answered.cost) == "0.000075 USD"
    task = carried_out(started(), first)
    task = task.model_copy(update={"status": task.status.model_copy(update={"phase": "SendContextWindowToLLM"})})
    dearer = PRICES.model_copy(update={"output_per_million": "10.000001"})
    second = decide_task(snapshot(task, result=answer(content="done"), answer_prices=dearer))
    assert second.status is not None
    assert second.status.cost == "0.000150000005"
    assert reasons(second) == ["LLMFinalAnswer"]


def test_a_turn_in_another_currency_is_told_of_and_not_added() -> None:
    task = started()
    task.status.cost, task.status.currency = "1.5", "EUR"
    plan = decide_task(snapshot(task, result=answer(content="done"), answer_prices=PRICES))
    assert plan.status is not None
    assert (plan.status.cost, plan.status.currency) == ("1.5", "EUR")
    assert [(e.type, e.reason) for e in plan.events][-1] == ("Warning", "CostNotAdded")
    assert plan.events[-1].message.startswith("0.000075 USD are not added to status.cost, which is in EUR")


def test_an_llm_without_prices_costs_nothing_that_is_known() -> None:
    plan = decide_task(snapshot(started(), result=answer(content="done")))
    assert plan.status is not None
    assert plan.status.cost is None


def test_an_answer_says_what_it_used_and_one_of_another_task_does_not() -> None:
    task = with_tool_calls("fetch__fetch")
    assert task.status.context_window[-1].usage == MessageUsage(input_tokens=10, output_tokens=5)
    source = finished_source()
    plan = decide_task(snapshot(going_on(), source=Source(source, source.status.context_window)))
    assert plan.status is not None
    assert [m.usage for m in plan.status.context_window] == [None] * 4


def test_a_result_of_an_earlier_turn_is_dropped() -> None:
    assert decide_task(snapshot(started(), result=answer(content="late", turn=0))) == TaskPlan(consumed=True)


def test_a_result_of_a_later_turn_waits_for_the_watch_to_bring_the_task_that_it_belongs_to() -> None:
    early = answer(content="early", turn=2)
    assert decide_task(snapshot(started(), result=early)) == NOTHING
    assert not decide_task(snapshot(with_tool_calls("fetch__fetch"), result=early)).consumed


@pytest.mark.parametrize(("too_large", "reason"), [(True, "ContextWindowTooLarge"), (False, "StatusRefused")])
def test_a_status_that_the_api_server_refuses_ends_the_task(too_large: bool, reason: str) -> None:
    plan = decide_refused(snapshot(started(), result=answer(content="x")), "no", too_large=too_large)
    assert plan.status is not None
    assert plan.status.conditions[0].reason == reason
    assert [m.role for m in plan.status.context_window] == ["system", "user"]
    assert plan.consumed


def test_a_result_that_can_not_be_read_is_an_error_of_its_turn() -> None:
    result = build_unreadable_result("kubechain.llm.result.default.uid-hello.1.0", "unknown version")
    assert result is not None
    plan = decide_task(snapshot(started(), result=result))
    assert plan.status is not None
    assert plan.status.error == "the result of the turn can not be read: unknown version"
    assert build_unreadable_result("kubechain.llm.result.default.uid-hello.1.0.retry.2", "unknown version") is None


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        (404, "LLMRequestFailed4xx", "LLM request failed with status 404: no such model"),
        (None, "LLMRequestFailed", "LLM request failed: no such model"),
    ],
)
def test_a_failed_request_ends_the_task_with_the_providers_sentence(
    code: int | None, reason: str, message: str
) -> None:
    error = LLMCallError(message="no such model", status_code=code)
    result = LLMResult(task=ObjectRef.of(build_task()), turn=1, outcome="Error", error=error)
    plan = decide_task(snapshot(started(), result=result))
    status = plan.status
    assert status is not None
    assert (status.phase, status.status, status.ready) == (TaskPhase.FAILED, "Error", False)
    assert status.status_detail == "LLM request failed: no such model"
    assert status.error == "no such model"
    assert [(e.type, e.reason, e.message) for e in plan.events] == [("Warning", reason, message)]
    assert [(c.type, c.reason) for c in status.conditions] == [("Failed", "LLMRequestFailed")]


def test_a_lost_text_ends_the_task_with_a_reason_of_its_own() -> None:
    error = LLMCallError(message='ConfigMap "x" is gone', reason="ContentLost")
    result = LLMResult(task=ObjectRef.of(build_task()), turn=1, outcome="Error", error=error)
    plan = decide_task(snapshot(started(), result=result))
    assert plan.status is not None
    assert plan.status.error == 'ConfigMap "x" is gone'
    assert [c.reason for c in plan.status.conditions] == ["ContentLost"]
    assert reasons(plan) == ["ContentLost"]


def test_a_retry_is_shown_and_nothing_else_changes() -> None:
    error = LLMCallError(message="overloaded", status_code=529, retryable=True)
    notice = LLMResult(
        task=ObjectRef.of(build_task()), turn=1, outcome="Retrying", error=error, attempt=2, retry_in_seconds=4.2
    )
    task = started()
    plan = decide_task(snapshot(task, result=notice))
    assert plan.status is not None
    assert plan.status.status_detail == "LLM request failed (attempt 2): overloaded; retrying in 4 s"
    assert plan.status.phase == TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM
    assert plan.status.context_window == task.status.context_window
    assert reasons(plan) == ["LLMRequestFailed"]
    assert plan.consumed


def test_an_llm_that_cannot_be_used_is_waited_for_without_a_time() -> None:
    error = LLMCallError(message='Secret "openai" not found', retryable=True)
    notice = LLMResult(task=ObjectRef.of(build_task()), turn=1, outcome="Retrying", error=error)
    plan = decide_task(snapshot(started(), result=notice))
    assert plan.status is not None
    assert plan.status.status_detail == 'Waiting for the LLM: Secret "openai" not found'
    assert [(event.type, event.reason) for event in plan.events] == [("Normal", "Waiting")]


@pytest.mark.parametrize("tools", [(), ("fetch__fetch",)])
def test_an_answer_of_a_fallback_is_told(tools: tuple[str, ...]) -> None:
    other = ObjectRef(namespace="default", name="spare", uid="uid-spare")
    result = answer(*tools, content="hi").model_copy(
        update={"answered_by": other, "fallback_reason": "Connection refused"}
    )
    plan = decide_task(snapshot(started(), result=result))
    [event] = [event for event in plan.events if event.reason == "LLMFallbackUsed"]
    assert event.type == "Warning"
    assert event.message == 'LLM "spare" answered in place of "gpt-4o": Connection refused'
    known = result.model_copy(update={"llm": ObjectRef(namespace="default", name="asked", uid="uid-asked")})
    told = [event.message for event in decide_task(snapshot(started(), result=known)).events]
    assert 'LLM "spare" answered in place of "asked": Connection refused' in told
    assert "LLMFallbackUsed" not in [e.reason for e in decide_task(snapshot(started(), result=answer())).events]


def test_an_incomplete_answer_is_the_answer_and_says_what_it_lacks() -> None:
    message = Message(role="assistant", content="half an ans")
    result = LLMResult(
        task=ObjectRef.of(build_task()), turn=1, outcome="Message", message=message, incomplete="it was cut off"
    )
    plan = decide_task(snapshot(started(), result=result))
    assert plan.status is not None
    assert (plan.status.phase, plan.status.output) == (TaskPhase.FINAL_ANSWER, "half an ans")
    assert plan.status.status_detail == "LLM final response received, but it was cut off"
    (condition,) = plan.status.conditions
    assert (condition.type, condition.status, condition.reason) == ("Complete", "True", "FinalAnswerIncomplete")
    assert [(event.type, event.reason) for event in plan.events] == [("Warning", "LLMFinalAnswerIncomplete")]


def test_a_task_in_flight_waits_where_it_is_when_its_agent_turns_unready() -> None:
    task = started()
    plan = decide_task(snapshot(task, agent=build_agent(ready=False)))
    assert plan.status is not None
    assert plan.status.phase == TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM
    assert plan.status.context_window == task.status.context_window
    assert plan.status.status_detail == 'Waiting for agent "my-assistant" to become ready'
    again = decide_task(snapshot(carried_out(task, plan)))
    assert again.send
    assert again.status is not None
    assert again.status.status == "Ready"


# --- tool calls


def test_tool_calls_are_written_down_before_their_children_are_made() -> None:
    task = started()
    plan = decide_task(snapshot(task, result=answer("fetch__fetch", "fetch__head", content="let me look")))
    assert plan.status is not None
    assert plan.status.phase == TaskPhase.TOOL_CALLS_PENDING
    assert plan.status.status_detail == "LLM response received, tool calls pending"
    assert plan.status.context_window[-1].content == "let me look"
    names = child_names(task, 1, 2)
    assert [c.name for c in plan.children] == names
    assert [(e.reason, e.message) for e in plan.events] == [
        ("ToolCallsPending", "LLM response received, tool calls pending"),
        ("ToolCallCreated", f"Created TaskRunToolCall {names[0]}"),
        ("ToolCallCreated", f"Created TaskRunToolCall {names[1]}"),
    ]


def test_a_child_says_all_that_is_needed_to_run_it() -> None:
    task = started()
    child = decide_task(snapshot(task, result=answer("fetch__fetch"))).children[0]
    assert child.spec.tool_ref.name == "fetch__fetch"
    assert child.spec.target is not None
    assert (child.spec.tool_type, child.spec.target.name, child.spec.target.tool) == ("MCP", "fetch", "fetch")
    assert child.spec.arguments == '{"url": "x"}'
    assert child.spec.span_context == task.status.span_context
    assert child.metadata.labels == {
        "kubechain.humanlayer.dev/taskruntoolcall": "hello",
        "kubechain.humanlayer.dev/task-uid": "uid-hello",
    }
    owner = child.metadata.owner_references[0]
    assert (owner.kind, owner.name, owner.uid, owner.controller) == ("Task", "hello", "uid-hello", True)


def test_after_a_crash_only_the_missing_children_are_made() -> None:
    task = with_tool_calls("fetch__fetch", "fetch__head")
    first, second = child_names(task, 1, 2)
    plan = decide_task(snapshot(task, children={first: build_call(first)}))
    assert [c.name for c in plan.children] == [second]
    assert plan.status is None


def test_calls_that_waited_for_the_agent_are_told_of_when_they_are_made() -> None:
    task = with_tool_calls("fetch__fetch")
    away = decide_task(snapshot(task, agent=None, llm=None, catalog=build_catalog(AGENT, {}, {}, {})))
    waiting = carried_out(task, away)
    assert (waiting.status.status, waiting.status.status_detail) == ("Pending", "Waiting for Agent to exist")
    plan = decide_task(snapshot(waiting))
    assert [c.name for c in plan.children] == child_names(task, 1, 1)
    assert plan.status == task.status


def test_the_task_waits_until_every_child_has_ended() -> None:
    task = with_tool_calls("fetch__fetch", "fetch__head")
    first, second = child_names(task, 1, 2)
    children = {first: build_call(first, status={"phase": "Succeeded"}), second: build_call(second)}
    assert decide_task(snapshot(task, children=children)) == NOTHING


def test_results_go_into_the_window_in_call_order() -> None:
    task = with_tool_calls("fetch__fetch", "fetch__head", "fetch__head")
    names = child_names(task, 1, 3)
    statuses = [
        {"phase": "Succeeded", "result": "one"},
        {"phase": "Failed", "error": "no route to host"},
        {"phase": "ToolCallRejected", "result": "not on a Friday"},
    ]
    children = {n: build_call(n, status=s) for n, s in reversed(list(zip(names, statuses, strict=True)))}
    plan = decide_task(snapshot(task, children=children))
    assert plan.status is not None
    assert [(m.role, m.content, m.tool_call_id) for m in plan.status.context_window[-3:]] == [
        ("tool", "one", "call_0"),
        ("tool", "Error: no route to host", "call_1"),
        ("tool", "not on a Friday", "call_2"),
    ]
    assert (plan.status.turn, plan.status.phase) == (2, TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM)
    assert plan.status.status_detail == "All tool calls completed, ready to send tool results to LLM"
    assert reasons(plan) == ["AllToolCallsCompleted", "SendingContextWindowToLLM"]
    assert (plan.send, plan.fresh) == (True, True)


def test_an_unknown_tool_becomes_a_child_without_a_target() -> None:
    child = decide_task(snapshot(started(), result=answer("nope"))).children[0]
    assert child.spec.target is None
    assert child.spec.tool_type is None


def test_a_child_that_the_api_server_refuses_is_an_error_that_the_model_reads() -> None:
    task = with_tool_calls("fetch__fetch")
    name = child_names(task, 1, 1)[0]
    plan = decide_task(snapshot(task, refused={name: "arguments: too long"}))
    assert plan.status is not None
    assert plan.status.context_window[-1].content == "Error: arguments: too long"


def test_a_tool_that_an_unready_agent_does_not_offer_is_waited_for() -> None:
    task = started()
    unready = snapshot(
        task, agent=build_agent(ready=False), catalog=build_catalog(AGENT, {}, {}, {}), result=answer("fetch__fetch")
    )
    plan = decide_task(unready)
    assert plan.children == ()
    pending = carried_out(task, plan)
    waiting = decide_task(replace(unready, task=pending, result=None))
    assert waiting.status is not None
    assert waiting.status.phase == TaskPhase.TOOL_CALLS_PENDING
    assert waiting.status.status_detail == 'Waiting for agent "my-assistant" to become ready'
    assert len(decide_task(snapshot(pending)).children) == 1


def test_an_agent_whose_server_has_gone_is_not_taken_at_its_word() -> None:
    """The Task hears of the server before the Agent has said that it waits for one; it may never say so."""
    task = started()
    nothing = build_catalog(AGENT, {}, {}, {})
    bereft = snapshot(task, agent_complete=False, catalog=nothing, result=answer("fetch__fetch"))
    answered = decide_task(bereft)
    assert (answered.children, answered.consumed) == ((), True)
    pending = carried_out(task, answered)
    waiting = decide_task(replace(bereft, task=pending, result=None))
    assert waiting.status is not None
    assert waiting.status.status_detail == 'Waiting for agent "my-assistant" to become ready'
    assert (waiting.children, waiting.requeue_after) == ((), 0.5)
    assert len(decide_task(snapshot(pending)).children) == 1
    assert not decide_task(replace(bereft, result=None)).send
    assert decide_task(replace(bereft, result=None)).requeue_after == 0.5


def test_calls_without_ids_or_with_equal_ids_get_their_own() -> None:
    plan = decide_task(
        snapshot(started(), result=answer("fetch__fetch", "fetch__head", "fetch__head", ids=("", "a", "a")))
    )
    ids = [c.spec.tool_call_id for c in plan.children]
    assert ids == ["call_1_1", "a", "call_1_3"]


def test_a_duplicate_result_while_tools_run_is_acknowledged_and_changes_nothing() -> None:
    task = with_tool_calls("fetch__fetch")
    name = child_names(task, 1, 1)[0]
    plan = decide_task(snapshot(task, children={name: build_call(name)}, result=answer("fetch__fetch")))
    assert plan == TaskPlan(consumed=True)


# --- bounds


def test_a_tool_loop_ends_at_max_turns() -> None:
    task = started(maxTurns=1)
    plan = decide_task(snapshot(task, result=answer("fetch__fetch")))
    assert plan.status is not None
    assert plan.status.phase == TaskPhase.FAILED
    assert "limit of 1 turns" in plan.status.error
    assert plan.status.context_window[-1].role == "assistant"
    assert plan.children == ()


def at_turn(turn: int, **spec: Any) -> Task:
    task = started(**spec)
    return task.model_copy(update={"status": task.status.model_copy(update={"turn": turn})})


def test_an_agent_that_is_away_when_the_answer_comes_gives_its_limit_later() -> None:
    tools, nothing = answer("fetch__fetch"), build_catalog(AGENT, {}, {}, {})
    away: dict[str, Any] = {"agent": None, "llm": None, "catalog": nothing}
    task = at_turn(60)
    plan = decide_task(snapshot(task, result=tools.model_copy(update={"turn": 60}), **away))
    pending = carried_out(task, plan)
    assert (pending.status.phase, plan.children) == (TaskPhase.TOOL_CALLS_PENDING, ())
    back = build_agent(mcpServers=[{"name": "fetch"}], maxTurns=100)
    assert [c.name for c in decide_task(snapshot(pending, agent=back)).children] == child_names(task, 60, 1)
    next_answer = tools.model_copy(update={"turn": 61})
    judged = decide_task(snapshot(at_turn(61), agent=build_agent(maxTurns=60), result=next_answer))
    assert judged.status is not None
    assert "limit of 60 turns" in judged.status.error


def test_a_limit_of_the_task_itself_holds_while_its_agent_is_away() -> None:
    plan = decide_task(snapshot(started(maxTurns=1), agent=None, llm=None, result=answer("fetch__fetch")))
    assert plan.status is not None
    assert "limit of 1 turns" in plan.status.error


def test_a_cancelled_task_fails_wherever_it_stands() -> None:
    for task in (build_task(cancel=True), with_tool_calls("fetch__fetch", cancel=None)):
        cancelled = task.model_copy(update={"spec": task.spec.model_copy(update={"cancel": True})})
        plan = decide_task(snapshot(cancelled))
        assert plan.status is not None
        assert (plan.status.phase, plan.status.conditions[0].reason) == (TaskPhase.FAILED, "Cancelled")


def test_a_deadline_is_waited_for_and_then_ends_the_task() -> None:
    task = started(activeDeadlineSeconds=60)
    assert decide_task(snapshot(task, request_on_its_way=True)).requeue_after == 60
    late = replace(snapshot(task, request_on_its_way=True), now=NOW + timedelta(seconds=61))
    plan = decide_task(late)
    assert plan.status is not None
    assert plan.status.conditions[0].reason == "DeadlineExceeded"


def test_a_finished_task_stays_as_it_is() -> None:
    task = started()
    done = carried_out(task, decide_task(snapshot(task, result=answer(content="done"))))
    assert decide_task(snapshot(done, result=answer(content="other"))) == TaskPlan(consumed=True)


def test_a_finished_task_goes_after_its_ttl() -> None:
    task = started(ttlSecondsAfterFinished=30)
    done = carried_out(task, decide_task(snapshot(task, result=answer(content="done"))))
    assert decide_task(snapshot(done)).requeue_after == 30
    assert decide_task(replace(snapshot(done), now=NOW + timedelta(seconds=31))).delete


def test_nothing_is_begun_for_an_object_that_is_being_deleted() -> None:
    task = build_task(metadata={"deletionTimestamp": "2026-11-23T12:00:00Z"})
    assert decide_task(snapshot(task)) == TaskPlan(consumed=True, withdraw=True)


# --- what an early end takes back


def calls_of(task: Task, *phases: str, **spec: Any) -> dict[str, Any]:
    names = child_names(task, 1, len(phases))
    return {
        name: build_call(name, task=task, status={"phase": phase}, **spec)
        for name, phase in zip(names, phases, strict=True)
    }


def test_a_cancelled_task_takes_its_request_back() -> None:
    task = started().model_copy(deep=True)
    task.spec.cancel = True
    plan = decide_task(snapshot(task, request_on_its_way=True))
    assert plan.withdraw
    assert plan.status is not None
    assert plan.status.conditions[-1].reason == "Cancelled"


def test_a_task_that_ends_early_cancels_the_calls_that_have_not_ended() -> None:
    task = with_tool_calls("fetch__fetch", "fetch__head", activeDeadlineSeconds=1)
    children = calls_of(task, "Succeeded", "Pending")
    plan = decide_task(replace(snapshot(task, children=children), now=NOW + timedelta(seconds=2)))
    assert plan.status is not None
    assert plan.status.conditions[-1].reason == "DeadlineExceeded"
    assert plan.forbid == plan.cancel == (child_names(task, 1, 2)[1],)
    assert plan.withdraw, "an earlier leader may have known more"


def test_a_task_that_ends_early_forbids_the_calls_that_it_has_not_seen_or_that_are_cancelled_already() -> None:
    task = with_tool_calls("fetch__fetch", "fetch__head").model_copy(deep=True)
    task.spec.cancel = True
    first, unseen = child_names(task, 1, 2)
    plan = decide_task(snapshot(task, children={first: calls_of(task, "Pending", cancel=True)[first]}))
    assert plan.forbid == (first, unseen)
    assert plan.cancel == ()


def test_a_finished_task_cancels_a_call_that_was_left_under_way() -> None:
    task = with_tool_calls("fetch__fetch").model_copy(deep=True)
    task.status.phase = TaskPhase.FAILED
    assert decide_task(snapshot(task, children=calls_of(task, "Pending"))).cancel == tuple(child_names(task, 1, 1))
    assert decide_task(snapshot(task, children=calls_of(task, "Pending", cancel=True))).cancel == ()
    assert decide_task(snapshot(task, children=calls_of(task, "Failed"))).cancel == ()


def test_a_task_that_is_being_deleted_takes_everything_back_and_writes_nothing() -> None:
    for task, withdraw, cancel in (
        (started(), True, ()),
        (tools := with_tool_calls("fetch__fetch"), True, tuple(child_names(tools, 1, 1))),
    ):
        task.metadata.deletion_timestamp = NOW
        children = calls_of(task, "Pending") if cancel else {}
        plan = decide_task(snapshot(task, children=children))
        assert plan == TaskPlan(consumed=True, withdraw=withdraw, forbid=cancel, cancel=cancel)


def test_the_deadline_counts_from_the_first_look_at_a_task_that_waits() -> None:
    task = build_task(activeDeadlineSeconds=10)
    first = decide_task(snapshot(task, agent=None, llm=None))
    assert first.requeue_after == 10
    waiting = carried_out(task, first)
    late = replace(snapshot(waiting, agent=None, llm=None), now=NOW + timedelta(seconds=10))
    plan = decide_task(late)
    assert plan.status is not None
    assert plan.status.conditions[-1].reason == "DeadlineExceeded"
    begun = decide_task(replace(snapshot(waiting), now=NOW + timedelta(seconds=4)))
    assert begun.status is not None
    assert begun.status.start_time == NOW
    assert begun.requeue_after == 6


# --- trouble with the bus

FULL = Trouble("MessageBusFull", PREFIX + "NATS has no room. This goes on when there is room")


def test_trouble_with_the_bus_is_told_once_and_forgotten_when_the_request_is_out() -> None:
    task = started()
    plan = decide_kept(task, FULL)
    assert plan.status is not None
    assert (plan.status.status_detail, plan.status.phase) == (FULL.detail, task.status.phase)
    assert [(e.type, e.reason, e.message) for e in plan.events] == [("Warning", "MessageBusFull", FULL.detail)]
    kept = carried_out(task, plan)
    assert decide_kept(kept, FULL) == NOTHING
    assert decide_task(snapshot(kept)) == TaskPlan(send=True), "nothing is written before the next attempt"
    sent = decide_task(snapshot(kept, request_on_its_way=True))
    assert sent.status is not None
    assert sent.status.status_detail == "Sending context window to LLM"
    assert decide_task(snapshot(carried_out(kept, sent), request_on_its_way=True)) == NOTHING


def test_trouble_in_many_words_is_told_once() -> None:
    long = Trouble("MessageBusFull", PREFIX + "x" * 5000)
    task = started()
    assert decide_kept(carried_out(task, decide_kept(task, long)), long) == NOTHING


# --- what a Task that ends early keeps


def ending_with(task: Task, statuses: list[dict[str, Any] | None], **parts: Any) -> TaskPlan:
    """Its calls stand so when it is cancelled; None for one that nobody has seen."""
    names = child_names(task, 1, len(statuses))
    children = {
        name: build_call(name, task=task, status=status, toolCallId=f"call_{index}")
        for index, (name, status) in enumerate(zip(names, statuses, strict=True))
        if status is not None
    }
    cancelled = task.model_copy(update={"spec": task.spec.model_copy(update={"cancel": True})})
    return decide_task(snapshot(cancelled, children=children, **parts))


THREE: list[dict[str, Any] | None] = [
    {"phase": "Succeeded", "result": "one"},
    {"phase": "Running"},
    {"phase": "Failed", "error": "no route"},
]


def test_a_task_that_ends_early_keeps_the_results_that_are_there_in_call_order() -> None:
    task = with_tool_calls("fetch__fetch", "fetch__head", "fetch__head")
    plan = ending_with(task, THREE)
    assert plan.status is not None
    assert [(m.tool_call_id, m.content) for m in plan.status.context_window[-2:]] == [
        ("call_0", "one"),
        ("call_2", "Error: no route"),
    ]
    assert plan.status.message_count == len(plan.status.context_window) == 5
    assert plan.status.conditions[-1].reason == "Cancelled"
    assert plan.cancel == plan.forbid == (child_names(task, 1, 3)[1],)


def test_a_task_that_goes_on_from_it_reads_them_and_of_the_others_that_they_did_not_end() -> None:
    plan = ending_with(with_tool_calls("fetch__fetch", "fetch__head", "fetch__head"), THREE)
    ended = carried_out(build_task(), plan)
    status = decide_task(snapshot(going_on(), source=Source(ended, ended.status.context_window))).status
    assert status is not None
    assert [(m.role, m.tool_call_id, m.content) for m in status.context_window[3:]] == [
        ("tool", "call_0", "one"),
        ("tool", "call_1", "Error: the Task ended before this tool call was answered"),
        ("tool", "call_2", "Error: no route"),
        ("user", None, "and then?"),
    ]


def test_a_call_that_was_refused_is_told_of_at_the_end_too() -> None:
    task = with_tool_calls("fetch__fetch")
    plan = ending_with(task, [None], refused={child_names(task, 1, 1)[0]: "too long"})
    assert plan.status is not None
    assert plan.status.context_window[-1].content == "Error: too long"


def test_the_last_results_make_no_status_large() -> None:
    count = 100
    task = with_tool_calls(*["fetch__fetch"] * count)
    plan = ending_with(task, [{"phase": "Succeeded", "result": "r" * 5000}] * count)
    assert plan.status is not None
    assert len(plan.status.context_window) <= WINDOW_MESSAGES
    assert plan.status.message_count == 3 + count
    assert plan.stored


@pytest.mark.parametrize("statuses", [[{"phase": "Running"}], [None]])
def test_a_task_without_a_result_ends_as_it_stands(statuses: list[dict[str, Any] | None]) -> None:
    task = with_tool_calls("fetch__fetch")
    plan = ending_with(task, statuses)
    assert plan.status is not None
    assert plan.status.context_window == task.status.context_window
    assert not plan.keeps_results


def test_a_task_whose_last_results_can_not_be_kept_ends_without_them() -> None:
    task = with_tool_calls("fetch__fetch", "fetch__head", "fetch__head")
    assert ending_with(task, THREE).keeps_results
    plan = ending_with(task, THREE, keeps_results=False)
    assert plan.status is not None
    assert (plan.status.context_window, plan.stored) == (task.status.context_window, ())
    assert plan.status.conditions[-1].reason == "Cancelled"
