"""How large a conversation is, and what becomes of one that is larger than its Agent allows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.content import build_view, split_head
from kubechain_common.api.turn_calls import child_names
from kubechain_common.api.v1alpha1 import Agent, Task
from kubechain_common.api.v1alpha1.conversation import (
    ConfigMapKeyRef,
    ContentSource,
    ImageSource,
    Message,
    MessageToolCall,
    MessageUsage,
    TokenUsage,
    ToolCallFunction,
)
from kubechain_common.api.v1alpha1.task import TaskPhase
from kubechain_common.messages import LLMResult, ObjectRef, ToolDefinition
from kubechain_common.testing.arbitrary import fuzz
from kubechain_common.testing.builders import NOW, build_agent, build_call, build_llm, build_mcp_server, build_task
from kubechain_task_controller.core.offload import shorten_text
from kubechain_task_controller.core.overflow import PROMPT, build_request_window, choose_kept
from kubechain_task_controller.core.plan import TaskPlan, TaskSnapshot
from kubechain_task_controller.core.source import Source
from kubechain_task_controller.core.task_decision import decide_task
from kubechain_task_controller.core.tool_catalog import build_catalog
from kubechain_task_controller.core.window_size import (
    IMAGE_TOKENS,
    MESSAGE_TOKENS,
    count_answer,
    estimate_messages,
    estimate_tools,
)

SOURCE = ContentSource(config_map_key_ref=ConfigMapKeyRef(name="n", key="k"))

# --- sizes


def call(arguments: str = "", name: str = "") -> MessageToolCall:
    return MessageToolCall(id="c", function=ToolCallFunction(name=name, arguments=arguments))


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        (Message(role="user"), 0),
        (Message(role="user", content="x" * 300), 100),
        (Message(role="user", content="x" * 301), 101),
        (Message(role="user", content="猫" * 10), 10),
        (Message(role="assistant", tool_calls=[call("x" * 30, "abc"), call("y" * 27)]), 20),
        (Message(role="tool", content=shorten_text("x" * 30_000), content_from=SOURCE), 10_000),
        (Message(role="tool", content="said by hand", content_from=SOURCE), 4),
        (Message(role="user", content="[30,000 bytes]"), 5),
    ],
)
def test_a_token_is_three_bytes(message: Message, tokens: int) -> None:
    assert estimate_messages([message]) == tokens + MESSAGE_TOKENS


def test_images_and_tools_have_a_size_and_what_is_earlier_has_none() -> None:
    image = ImageSource(mime_type="image/png", config_map_key_ref=ConfigMapKeyRef(name="n", key="k"))
    assert estimate_messages([Message(role="tool", images=[image] * 2)]) == MESSAGE_TOKENS + 2 * IMAGE_TOKENS
    assert estimate_messages([Message(role="earlier", content="20 earlier messages")]) == 0
    tool = ToolDefinition(name="t", description="d" * 300)
    assert 100 < estimate_tools([tool]) - MESSAGE_TOKENS < 130
    assert estimate_tools([tool, tool]) == 2 * estimate_tools([tool])


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [(MessageUsage(input_tokens=70, output_tokens=7), 77), (MessageUsage(), 118), (None, 118)],
)
def test_what_the_provider_counted_counts(usage: MessageUsage | None, tokens: int) -> None:
    assert count_answer(100, Message(role="assistant", content="x" * 30), usage) == tokens


# --- what a summary keeps


def said(record: str, size: int = 30) -> list[Message]:
    """Messages by their first letters; each has ``size`` bytes of text."""
    roles: dict[str, Any] = {"s": "system", "u": "user", "a": "assistant", "t": "tool", "S": "summary", "e": "earlier"}
    return [Message(role=roles[name[0]], content=name.ljust(size)) for name in record.split()]


@pytest.mark.parametrize(
    ("record", "max_tokens", "kept"),
    [
        ("s u a t a t a t", 10_000, "a t a t"),  # the first exchange is left to tell of
        ("s u a t a t a t", 150, "a t"),
        ("s u a t t t", 10_000, None),
        ("s u", 10_000, None),
        ("s u a t a t", 70, None),  # what stays anyway is too much
        ("s u e a t", 10_000, "a t"),
        ("s u e a t a t", 10_000, "a t a t"),
        ("s u a t S a t", 10_000, None),
        ("s u e S a t", 10_000, None),
        ("s u a t S a t a t", 10_000, "a t"),
        ("s u a t u", 10_000, "u"),
        ("s u a u a t t a", 10_000, "u a t t a"),
        ("s u" + " a t" * 9, 100_000, "a t" + " a t" * 3),
    ],
)
def test_a_summary_keeps_whole_exchanges_at_the_end(record: str, max_tokens: int, kept: str | None) -> None:
    window = said(record)
    keeps = choose_kept(window, max_tokens)
    wanted = len(kept.split()) if kept else None
    assert keeps == wanted
    if keeps is not None:
        assert " ".join(m.content.strip() for m in window[-keeps:]) == kept


@fuzz
@given(st.lists(st.sampled_from("uatS"), max_size=14), st.integers(50, 400), st.integers(1, 200))
def test_no_result_is_parted_from_its_call(letters: list[str], max_tokens: int, size: int) -> None:
    window = said("s u " + " ".join(letters), size)
    keeps = choose_kept(window, max_tokens)
    if keeps is None:
        return
    head, rest = split_head(window)
    kept = window[-keeps:]
    assert 0 < keeps < len(rest)
    assert kept[0].role in ("assistant", "user")
    assert all(message.role != "summary" for message in kept)
    assert estimate_messages([*head, *kept]) <= max_tokens
    view = build_view(*split_head([*window, Message(role="summary", content="short", keeps=keeps)]))
    assert view == [*head, view[len(head)], *kept]


# --- what a Task does

MODEL = ObjectRef.of(build_llm())


def agent_with(max_tokens: int, overflow: str | None = "Summarise", **spec: Any) -> Agent:
    policy = {"maxTokens": max_tokens, **({"onOverflow": overflow} if overflow else {})}
    return build_agent(mcpServers=[{"name": "fetch"}], context=policy, **spec)


CATALOG = build_catalog(agent_with(1), {"fetch": build_mcp_server(tools=("fetch",))}, {}, {})
SMALL, LARGE = 300, 2000


class Conversation:
    """A Task that goes on step by step, as the reconciler would have it."""

    def __init__(self, agent: Agent, **spec: Any) -> None:
        self.agent = agent
        self.task: Task = build_task(**spec)
        self.plan = self.decide()

    def decide(self, **parts: Any) -> TaskPlan:
        """The next plan, which is carried out."""
        snapshot = TaskSnapshot(self.task, NOW, **{"agent": self.agent, "llm": MODEL, "catalog": CATALOG, **parts})
        self.plan = decide_task(snapshot)
        if self.plan.status is not None:
            self.task = self.task.model_copy(update={"status": self.plan.status})
        return self.plan

    def answer(self, text: str, *tools: str, tokens: int = SMALL, **result: Any) -> TaskPlan:
        calls = [MessageToolCall(id=f"c{n}", function=ToolCallFunction(name=name)) for n, name in enumerate(tools)]
        message = Message(role="assistant", content=text, tool_calls=calls or None)
        usage = TokenUsage(input_tokens=tokens, output_tokens=10, total_tokens=tokens + 10)
        turn = self.task.status.turn
        said = LLMResult(
            task=ObjectRef.of(self.task), turn=turn, outcome="Message", message=message, usage=usage, **result
        )
        return self.decide(result=said)

    def exchange(self, tokens: int = SMALL, result: str = "r") -> TaskPlan:
        """A tool call and its result."""
        self.answer("", "fetch__fetch", tokens=tokens)
        (name,) = child_names(self.task, self.task.status.turn, 1)
        status = {"phase": "Succeeded", "result": result}
        return self.decide(children={name: build_call(name, task=self.task, toolCallId="c0", status=status)})

    @property
    def roles(self) -> str:
        return " ".join(message.role[0] for message in self.task.status.context_window)

    @property
    def reason(self) -> str:
        assert self.task.status.phase == TaskPhase.FAILED
        return next(c.reason for c in self.task.status.conditions if c.type == "Failed")


def test_without_a_policy_nothing_is_counted() -> None:
    talk = Conversation(build_agent(mcpServers=[{"name": "fetch"}]))
    assert talk.exchange(tokens=10**9).send
    assert talk.task.status.window_tokens is None


def test_the_window_is_what_was_counted_and_what_came_after() -> None:
    talk = Conversation(agent_with(1000))
    started = talk.task.status.window_tokens
    assert started is not None
    assert started < 100
    assert talk.exchange(result="x" * 300).send
    assert talk.task.status.window_tokens == SMALL + 10 + 100 + MESSAGE_TOKENS


@pytest.mark.parametrize("overflow", ["Fail", None])
def test_a_window_over_the_limit_ends_the_task_with_its_numbers(overflow: str | None) -> None:
    talk = Conversation(agent_with(1000, overflow))
    plan = talk.exchange(tokens=LARGE)
    sentence = "The context window is full: about 2,019 tokens are over the Agent's context.maxTokens of 1,000"
    assert (talk.reason, talk.task.status.error) == ("ContextWindowExceeded", sentence)
    assert [(e.type, e.reason) for e in plan.events] == [("Warning", "ContextWindowExceeded")]
    assert (talk.task.status.turn, talk.roles, plan.send) == (1, "s u a t", False)


def test_a_conversation_that_is_too_long_from_the_start_ends_at_once() -> None:
    talk = Conversation(agent_with(1000, "Fail"), userMessage="x" * 6000)
    assert talk.reason == "ContextWindowExceeded"
    assert (talk.task.status.turn, talk.task.status.message_count, talk.plan.send) == (0, 2, False)


def test_the_model_summarises_and_goes_on_from_there() -> None:
    talk = Conversation(agent_with(1000))
    talk.exchange()
    plan = talk.exchange(tokens=LARGE)
    status = talk.task.status
    assert (status.turn, status.phase, status.summary_keeps) == (3, TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM, 2)
    assert (plan.send, plan.fresh, talk.roles) == (True, True, "s u a t a t")
    assert [e.reason for e in plan.events] == [
        "AllToolCallsCompleted",
        "SummarisingContextWindow",
        "SendingContextWindowToLLM",
    ]
    request = build_request_window(talk.task)
    assert [m.role for m in request] == ["system", "user", "assistant", "tool", "user"]
    assert request[-1].content == PROMPT
    assert talk.decide() == TaskPlan(send=True)  # after a restart
    plan = talk.answer("It fetched x.", tokens=500)
    status = talk.task.status
    assert (status.turn, status.phase, status.summary_keeps) == (4, TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM, None)
    assert (plan.send, plan.fresh, talk.roles, status.message_count) == (True, True, "s u a t a t s", 7)
    summary = status.context_window[-1]
    assert (summary.role, summary.content, summary.keeps) == ("summary", "It fetched x.", 2)
    assert summary.usage == MessageUsage(input_tokens=500, output_tokens=10)
    assert status.window_tokens is not None
    assert status.window_tokens < 150
    assert [e.reason for e in plan.events] == ["ContextWindowSummarised", "SendingContextWindowToLLM"]
    assert plan.events[0].message.endswith(f"about {status.window_tokens} tokens instead of 2,019")
    assert build_request_window(talk.task) == status.context_window
    assert status.token_usage == TokenUsage(input_tokens=2800, output_tokens=30, total_tokens=2830)
    talk.answer("done")
    assert (talk.task.status.phase, talk.task.status.output) == (TaskPhase.FINAL_ANSWER, "done")


def test_a_second_summary_tells_of_what_came_after_the_first() -> None:
    talk = Conversation(agent_with(1000))
    talk.exchange()
    talk.exchange(tokens=LARGE)
    talk.answer("first")
    talk.exchange()
    talk.exchange(tokens=LARGE)
    assert talk.task.status.summary_keeps == 2
    request = build_request_window(talk.task)
    assert [m.content for m in request if m.role == "summary"] == ["first"]
    talk.answer("second")
    assert [m.content for m in talk.task.status.context_window if m.role == "summary"] == ["first", "second"]


def test_a_policy_that_is_new_counts_from_the_last_answer() -> None:
    talk = Conversation(build_agent(mcpServers=[{"name": "fetch"}]))
    talk.exchange(tokens=LARGE)
    talk.agent = agent_with(1000, "Fail")
    talk.exchange(tokens=0)  # a provider that reports nothing
    assert talk.reason == "ContextWindowExceeded"


@pytest.mark.parametrize(
    ("text", "tools"),
    [("", ("fetch__fetch",)), ("  ", ()), ("text", ("fetch__fetch",))],
    ids=["calls", "blank", "both"],
)
def test_a_summary_is_the_text_and_makes_no_calls(text: str, tools: tuple[str, ...]) -> None:
    talk = Conversation(agent_with(1000))
    talk.exchange()
    talk.exchange(tokens=LARGE)
    plan = talk.answer(text, *tools)
    assert plan.children == ()
    if text.strip():
        assert talk.task.status.context_window[-1].role == "summary"
    else:
        assert talk.reason == "ContextWindowExceeded"
        assert talk.task.status.error == "The context window is full, and the LLM gave no summary of it"


def test_a_summary_that_does_not_help_ends_the_task() -> None:
    talk = Conversation(agent_with(1000))
    talk.exchange()
    talk.exchange(tokens=LARGE)
    talk.answer("x" * 6000)
    assert talk.reason == "ContextWindowExceeded"
    assert "even with a summary" in talk.task.status.error
    assert talk.task.status.context_window[-1].role == "summary"


def test_one_result_that_is_too_large_is_not_summarised_for_nothing() -> None:
    talk = Conversation(agent_with(1000))
    talk.exchange()
    plan = talk.exchange(result="x" * 6000)
    assert (talk.reason, plan.send) == ("ContextWindowExceeded", False)


@pytest.mark.parametrize(("limit", "goes_on"), [(3, False), (4, True)])
def test_a_summary_is_a_turn_and_never_the_last_one(limit: int, goes_on: bool) -> None:
    talk = Conversation(agent_with(1000, maxTurns=limit))
    talk.exchange()
    plan = talk.exchange(tokens=LARGE)
    assert plan.send is goes_on
    if not goes_on:
        assert talk.reason == "MaxTurnsExceeded"


def test_a_budget_ends_a_task_after_its_summary() -> None:
    talk = Conversation(agent_with(1000), budget={"tokens": 2800})
    talk.exchange()
    talk.exchange(tokens=LARGE)
    talk.answer("short", tokens=600)
    assert talk.reason == "BudgetExceeded"
    assert talk.task.status.context_window[-1].role == "summary"


def test_a_summary_that_was_cut_off_is_told_of() -> None:
    talk = Conversation(agent_with(1000))
    talk.exchange()
    talk.exchange(tokens=LARGE)
    plan = talk.answer("half", incomplete="the model reached its token limit")
    assert (plan.events[0].type, plan.send) == ("Warning", True)
    assert plan.events[0].message.endswith("; but the model reached its token limit")


def test_a_correction_counts_for_the_window_and_a_format_binds_no_summary() -> None:
    wanted = {"type": "JSONSchema", "jsonSchema": {"type": "array"}}
    talk = Conversation(agent_with(1000, responseFormat=wanted))
    talk.exchange()
    plan = talk.answer("no array", tokens=LARGE)
    assert [e.reason for e in plan.events] == [
        "ResponseFormatCorrection",
        "SummarisingContextWindow",
        "SendingContextWindowToLLM",
    ]
    talk.answer("It is no JSON, and need not be.")
    assert talk.task.status.phase == "SendContextWindowToLLM"
    talk.answer("[]")
    assert talk.task.status.output == "[]"


def test_a_long_conversation_that_is_gone_on_with_is_summarised_first() -> None:
    source = build_task("old", status={"phase": "FinalAnswer", "turn": 2})
    window = said("s u a t a", size=1500)
    spec: dict[str, Any] = {"contextWindowFrom": {"taskRef": {"name": "old"}}, "userMessage": "and then?"}
    talk = Conversation.__new__(Conversation)
    talk.agent, talk.task = agent_with(2000), build_task(**spec)
    plan = talk.decide(source=Source(source, window))
    assert (talk.task.status.turn, talk.task.status.summary_keeps, plan.send) == (1, 1, True)
    assert [m.role for m in build_request_window(talk.task)] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    talk.answer("They talked.")
    assert talk.task.status.turn == 2
    view = build_view(*split_head(talk.task.status.context_window))
    assert [m.content.strip() for m in view[2:]] == ["They talked.", "and then?"]


def test_a_fork_counts_a_summary_as_the_turn_that_it_was() -> None:
    talk = Conversation(agent_with(1000))
    talk.exchange()
    talk.exchange(tokens=LARGE)
    talk.answer("They talked.")
    talk.answer("done")
    source = Source(talk.task, talk.task.status.context_window)
    fork = Conversation.__new__(Conversation)
    for turn, roles in ((2, "s u a t a t u"), (3, "s u a t a t s u"), (4, "s u a t a t s a u")):
        origin = {"taskRef": {"name": "hello"}, "turn": turn}
        fork.agent, fork.task = agent_with(10**6), build_task("fork", contextWindowFrom=origin, userMessage="and?")
        fork.decide(source=source)
        assert fork.roles == roles
