from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.v1alpha1.conversation import Message, MessageToolCall, TokenUsage, ToolCallFunction
from kubechain_common.api.v1alpha1.llm import LLMParameters
from kubechain_common.messages import ToolDefinition
from kubechain_llm_gateway.protocols.anthropic_mapping import EMPTY_USER_TEXT, build_request, parse_reply
from kubechain_llm_gateway.protocols.wire_ids import fit_id
from kubechain_llm_gateway.protocols.wire_json import encode, parse_arguments
from kubechain_llm_gateway.providers.errors import BrokenReplyError, UnusableReplyError

PARAMETERS = LLMParameters(model="claude")

text = st.text(max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
arguments = st.one_of(text, st.dictionaries(text, json_values, max_size=3).map(json.dumps))
calls = st.lists(
    st.builds(
        MessageToolCall,
        id=text,
        function=st.builds(
            ToolCallFunction, name=st.text(alphabet="abc_-", min_size=1, max_size=20), arguments=arguments
        ),
    ),
    max_size=4,
)
messages = st.lists(
    st.one_of(
        st.builds(Message, role=st.sampled_from(["system", "user"]), content=text),
        st.builds(Message, role=st.just("assistant"), content=text, tool_calls=st.none() | calls),
        st.builds(Message, role=st.just("tool"), content=text, tool_call_id=text),
    ),
    max_size=10,
)


def request_of(conversation: list[Message], tools: list[ToolDefinition] | None = None) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encode(build_request(conversation, tools or [], PARAMETERS)))
    return body


def expected_facts(conversation: list[Message]) -> list[tuple[Any, ...]]:
    """Everything that must be on the wire, in order, whatever the turns look like."""
    facts: list[tuple[Any, ...]] = []
    for m in conversation:
        if m.role == "tool":
            facts.append(("result", fit_id(m.tool_call_id or "", 64), m.content, m.content.startswith("Error: ")))
        elif m.role != "system":
            if m.content.strip():
                facts.append((m.role, m.content))
            facts += [
                ("call", fit_id(c.id, 64), c.function.name, parse_arguments(c.function.arguments))
                for c in m.tool_calls or []
            ]
    return facts


def wire_facts(body: dict[str, Any]) -> list[tuple[Any, ...]]:
    facts: list[tuple[Any, ...]] = []
    for turn in body["messages"]:
        for block in turn["content"]:
            match block["type"]:
                case "text" if block["text"] != EMPTY_USER_TEXT:
                    facts.append((turn["role"], block["text"]))
                case "tool_use":
                    facts.append(("call", block["id"], block["name"], block["input"]))
                case "tool_result":
                    is_error = block.get("is_error", False)
                    facts.append(("result", block["tool_use_id"], block.get("content", ""), is_error))
    return facts


@given(messages)
def test_every_conversation_goes_out_whole_and_in_turns(conversation: list[Message]) -> None:
    body = request_of(conversation)
    assert wire_facts(body) == expected_facts(conversation)
    system = [m.content for m in conversation if m.role == "system" and m.content.strip()]
    assert body.get("system", "") == "\n\n".join(system)
    roles = [turn["role"] for turn in body["messages"]]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"] * (len(roles) % 2)
    assert all(b["text"].strip() for turn in body["messages"] for b in turn["content"] if b["type"] == "text")


@given(st.text(max_size=60), st.lists(st.dictionaries(text, json_values, max_size=3), max_size=3))
def test_every_plain_answer_comes_back_as_it_was(content: str, inputs: list[dict[str, Any]]) -> None:
    blocks: list[dict[str, Any]] = [{"type": "text", "text": content}] if content.strip() else []
    blocks += [{"type": "tool_use", "id": f"toolu_{n}", "name": "f", "input": value} for n, value in enumerate(inputs)]
    if not blocks:
        return
    message = parse_reply({"content": blocks, "stop_reason": "end_turn"}).message
    assert message.content == (content if content.strip() else "")
    assert message.provider_data is None
    assert request_of([Message(role="user", content="q"), message])["messages"][1]["content"] == blocks


BLANKS = ["", "\n\n"]


@pytest.mark.parametrize("blank", BLANKS)
@pytest.mark.parametrize("thinking", [[], [{"type": "thinking", "thinking": "hm", "signature": "s"}]])
def test_a_blank_text_that_the_api_has_written_is_not_sent_back_to_it(
    blank: str, thinking: list[dict[str, Any]]
) -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"n": 1}}
    content = [*thinking, {"type": "text", "text": blank}, call]
    message = parse_reply({"content": content, "stop_reason": "tool_use"}).message
    assert request_of([Message(role="user", content="q"), message])["messages"][1]["content"] == [*thinking, call]
    stored = message.model_copy(update={"provider_data": {"provider": "anthropic", "content": content}})
    assert request_of([Message(role="user", content="q"), stored])["messages"][1]["content"] == [*thinking, call]


@pytest.mark.parametrize("written", ['{"path": "/a', "[1]", '{"n": NaN}'])
def test_arguments_that_are_no_object_are_handed_on_as_they_were_written(written: str) -> None:
    block = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": parse_arguments(written)}
    message = parse_reply({"content": [block], "stop_reason": "tool_use"}).message
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.arguments == written
    assert request_of([Message(role="user", content="q"), message])["messages"][1]["content"] == [block]


def test_parallel_calls_are_one_assistant_turn_and_their_results_one_user_turn() -> None:
    calls = [MessageToolCall(id=f"t{n}", function=ToolCallFunction(name="f", arguments=f'{{"n":{n}}}')) for n in (1, 2)]
    body = request_of(
        [
            Message(role="user", content="q"),
            Message(role="assistant", content="Looking.", tool_calls=calls),
            Message(role="tool", content="one", tool_call_id="t1"),
            Message(role="tool", content="Error: no", tool_call_id="t2"),
            Message(role="user", content="and?"),
        ]
    )
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Looking."},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"n": 1}},
                {"type": "tool_use", "id": "t2", "name": "f", "input": {"n": 2}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "one"},
                {"type": "tool_result", "tool_use_id": "t2", "content": "Error: no", "is_error": True},
                {"type": "text", "text": "and?"},
            ],
        },
    ]


def test_thinking_goes_back_untouched_and_only_to_its_provider() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "sig=="},
        {"type": "text", "text": "So."},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
    ]
    message = parse_reply({"content": blocks}).message
    assert message.content == "So."
    assert request_of([Message(role="user", content="q"), message])["messages"][1]["content"] == blocks
    assert message.provider_data is not None
    message.provider_data["provider"] = "another"
    assert request_of([Message(role="user", content="q"), message])["messages"][1]["content"] == blocks[1:]


def test_empty_fields_of_a_reply_are_nothing_to_keep() -> None:
    blocks = [
        {"type": "text", "text": "a", "citations": None},
        {
            "type": "tool_use",
            "id": "t",
            "name": "f",
            "input": {"a": 1},
            "caller": {"type": "direct"},
            "toolset_name": None,
        },
    ]
    assert parse_reply({"content": blocks}).message.provider_data is None


def test_history_with_tools_is_valid_after_the_agent_lost_them() -> None:
    call = MessageToolCall(id="t1", function=ToolCallFunction(name="gone", arguments="{}"))
    conversation = [
        Message(role="user", content="q"),
        Message(role="assistant", tool_calls=[call]),
        Message(role="tool", content="r", tool_call_id="t1"),
    ]
    body = request_of(conversation)
    assert body["tools"] == [{"name": "gone", "input_schema": {"type": "object"}}]
    assert body["tool_choice"] == {"type": "none"}
    assert "tool_choice" not in request_of(conversation, [ToolDefinition(name="new")])
    assert "tools" not in request_of(conversation[:1])


def test_tool_schemas_go_out_whole() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1], "description": "d"}}, "required": ["a"]}
    body = request_of(
        [], [ToolDefinition(name="t", description="does", parameters=schema), ToolDefinition(name="bare")]
    )
    assert body["tools"] == [
        {"name": "t", "description": "does", "input_schema": schema},
        {"name": "bare", "input_schema": {"type": "object"}},
    ]


@pytest.mark.parametrize("reply", [None, [], {}, {"content": "text"}, {"content": [1]}, {"content": [{}]}])
def test_what_is_no_reply_is_a_broken_one(reply: Any) -> None:
    with pytest.raises(BrokenReplyError):
        parse_reply(reply)


@pytest.mark.parametrize(
    ("stop_reason", "expected"),
    [
        ("end_turn", "neither text nor tool calls"),
        ("max_tokens", "maxTokens"),
        ("refusal", "refused"),
        ("model_context_window_exceeded", "context window"),
    ],
)
def test_an_empty_answer_says_why(stop_reason: str, expected: str) -> None:
    with pytest.raises(UnusableReplyError, match=expected):
        parse_reply({"content": [], "stop_reason": stop_reason})


def test_cached_input_is_input() -> None:
    usage = {"input_tokens": 1, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 100, "output_tokens": 5}
    completion = parse_reply({"content": [{"type": "text", "text": "a"}], "usage": usage, "stop_reason": "max_tokens"})
    assert completion.usage == TokenUsage(
        input_tokens=111, output_tokens=5, total_tokens=116, cached_input_tokens=100, cache_write_tokens=10
    )
    assert completion.stop_reason == "max_tokens"


@pytest.mark.parametrize(
    ("stop_reason", "incomplete"),
    [
        ("end_turn", ""),
        ("max_tokens", "the model reached its token limit: raise parameters.maxTokens"),
        ("refusal", "the model refused to go on"),
        ("model_context_window_exceeded", "the conversation fills the model's context window"),
    ],
)
def test_only_a_part_of_an_answer_is_called_incomplete(stop_reason: str, incomplete: str) -> None:
    reply = {"content": [{"type": "text", "text": "a"}], "stop_reason": stop_reason}
    assert parse_reply(reply).incomplete == incomplete


@pytest.mark.parametrize("stop_reason", ["max_tokens", "model_context_window_exceeded", "refusal"])
def test_a_tool_call_that_was_cut_off_is_not_made(stop_reason: str) -> None:
    reply = {"content": [{"type": "tool_use", "id": "t", "name": "delete", "input": {}}], "stop_reason": stop_reason}
    with pytest.raises(UnusableReplyError, match="in the middle of a tool call"):
        parse_reply(reply)


def test_a_tool_name_that_another_model_made_up_goes_out_in_a_form_that_fits() -> None:
    call = MessageToolCall(id="t1", function=ToolCallFunction(name="functions.lookup"))
    turns = request_of([Message(role="user", content="q"), Message(role="assistant", tool_calls=[call])])["messages"]
    assert turns[1]["content"][0]["name"].startswith("functions_lookup_")


EPHEMERAL = {"cache_control": {"type": "ephemeral"}}


def test_a_cache_ends_after_tools_system_and_all_that_was_said() -> None:
    own = [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "hello"}]
    talk = [
        Message(role="system", content="Be kind."),
        Message(role="user", content="hi"),
        Message(role="assistant", content="hello", provider_data={"provider": "anthropic", "content": own}),
        Message(role="user", content="and now?"),
    ]
    tools = [ToolDefinition(name="a"), ToolDefinition(name="b")]
    body = build_request(talk, tools, PARAMETERS, cached=True)
    assert [tool.get("cache_control") for tool in body["tools"]] == [None, {"type": "ephemeral"}]
    assert body["system"] == [{"type": "text", "text": "Be kind.", **EPHEMERAL}]
    assert [block.get("cache_control") for turn in body["messages"] for block in turn["content"]] == [
        None,
        None,
        None,
        {"type": "ephemeral"},
    ]
    assert encode(body).count(b"cache_control") <= 4  # the API refuses more


@pytest.mark.parametrize("kind", ["text", "thinking", "tool_use"])
def test_marking_for_the_cache_leaves_the_conversation_alone(kind: str) -> None:
    own = {"type": kind, "text": "hello", "name": "f"}
    talk = [Message(role="assistant", provider_data={"provider": "anthropic", "content": [own]})]
    body = build_request(talk, [], PARAMETERS, cached=True)
    assert "cache_control" not in own
    assert ("cache_control" in body["messages"][-1]["content"][-1]) == (kind != "thinking")


def test_nothing_is_cached_unless_asked_for() -> None:
    body = build_request([Message(role="user", content="hi")], [ToolDefinition(name="a")], PARAMETERS)
    assert b"cache_control" not in encode(body)
