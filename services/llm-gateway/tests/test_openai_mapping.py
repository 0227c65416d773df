from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.v1alpha1.conversation import Message, MessageToolCall, ToolCallFunction
from kubechain_common.api.v1alpha1.llm import LLMParameters
from kubechain_common.messages import ToolDefinition
from kubechain_llm_gateway.protocols.dialect import Dialect
from kubechain_llm_gateway.protocols.openai_mapping import build_request, parse_reply
from kubechain_llm_gateway.protocols.wire_json import UNPARSABLE, encode
from kubechain_llm_gateway.providers.errors import BrokenReplyError, UnusableReplyError

OFFICIAL = Dialect(host="api.openai.com", official=True)
COMPATIBLE = Dialect(host="llm.example", official=False)
PARAMETERS = LLMParameters(model="gpt-4o")

text = st.text(max_size=40)
ids = st.text(alphabet="abcXYZ019_-", min_size=1, max_size=30)
calls = st.lists(
    st.builds(
        MessageToolCall,
        id=ids,
        function=st.builds(ToolCallFunction, name=st.text(alphabet="abc_-", min_size=1, max_size=20), arguments=text),
    ),
    min_size=1,
    max_size=4,
)
messages = st.lists(
    st.one_of(
        st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=text),
        st.builds(Message, role=st.just("assistant"), content=text, tool_calls=calls),
        st.builds(Message, role=st.just("tool"), content=text, tool_call_id=ids),
    ),
    max_size=8,
)


def wire_of(conversation: list[Message], dialect: Dialect = OFFICIAL) -> list[dict[str, Any]]:
    body = json.loads(encode(build_request(conversation, [], PARAMETERS, dialect)))
    wire: list[dict[str, Any]] = body["messages"]
    return wire


def read_back(wire: dict[str, Any]) -> Message:
    tool_calls = [
        MessageToolCall(id=c["id"], type=c["type"], function=ToolCallFunction(**c["function"]))
        for c in wire.get("tool_calls", [])
    ]
    return Message(
        role=wire["role"],
        content=wire["content"] or "",
        tool_calls=tool_calls or None,
        tool_call_id=wire.get("tool_call_id"),
        name=wire.get("name"),
    )


@given(messages)
def test_every_conversation_comes_back_whole(conversation: list[Message]) -> None:
    assert [read_back(wire) for wire in wire_of(conversation)] == conversation


@given(messages)
def test_compatible_servers_get_argument_objects_only(conversation: list[Message]) -> None:
    for message, wire in zip(conversation, wire_of(conversation, COMPATIBLE), strict=True):
        for call, wire_call in zip(message.tool_calls or [], wire.get("tool_calls", []), strict=True):
            arguments = json.loads(wire_call["function"]["arguments"])
            assert isinstance(arguments, dict)
            if UNPARSABLE in arguments:
                assert arguments[UNPARSABLE] == call.function.arguments


@given(st.text(max_size=60), st.lists(st.tuples(ids, st.text(max_size=40)), max_size=4, unique_by=lambda c: c[0]))
def test_every_answer_survives(content: str, answer_calls: list[tuple[str, str]]) -> None:
    wire_calls = [{"id": i, "type": "function", "function": {"name": "f", "arguments": a}} for i, a in answer_calls]
    reply = {"choices": [{"message": {"role": "assistant", "content": content, "tool_calls": wire_calls}}]}
    if not content.strip() and not answer_calls:
        with pytest.raises(UnusableReplyError):
            parse_reply(reply, OFFICIAL)
        return
    message = parse_reply(reply, OFFICIAL).message
    assert message.content == content
    assert [(c.id, c.function.arguments) for c in message.tool_calls or []] == answer_calls


def test_text_beside_tool_calls_is_kept_and_absent_text_is_null() -> None:
    call = MessageToolCall(id="c1", function=ToolCallFunction(name="f", arguments="{}"))
    both, calls_only = wire_of(
        [
            Message(role="assistant", content="Let me look.", tool_calls=[call]),
            Message(role="assistant", tool_calls=[call]),
        ]
    )
    assert both["content"] == "Let me look."
    assert calls_only["content"] is None


def test_tool_schemas_go_out_whole() -> None:
    schema = {
        "type": "object",
        "properties": {"mode": {"type": "string", "enum": ["a", "b"], "description": "which"}},
        "required": ["mode"],
        "$defs": {"x": {"items": {"type": "integer"}}},
    }
    tools = [
        ToolDefinition(name="fetch__fetch", description="Fetch it", parameters=schema),
        ToolDefinition(name="bare"),
    ]
    wire = build_request([], tools, PARAMETERS, OFFICIAL)["tools"]
    assert wire == [
        {"type": "function", "function": {"name": "fetch__fetch", "description": "Fetch it", "parameters": schema}},
        {"type": "function", "function": {"name": "bare", "parameters": {"type": "object", "properties": {}}}},
    ]


def test_long_ids_are_shortened_alike_for_call_and_result() -> None:
    long_id = "call_" + "x" * 60
    call = MessageToolCall(id=long_id, function=ToolCallFunction(name="f", arguments="{}"))
    conversation = [
        Message(role="assistant", tool_calls=[call]),
        Message(role="tool", content="r", tool_call_id=long_id),
    ]
    assistant, result = wire_of(conversation)
    assert assistant["tool_calls"][0]["id"] == result["tool_call_id"]
    assert len(result["tool_call_id"]) <= 40
    assert wire_of(conversation, COMPATIBLE)[1]["tool_call_id"] == long_id


def test_unmodelled_fields_go_back_to_the_same_host_only() -> None:
    wire_call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
        "extra_content": {"sig": "s"},
    }
    reply = {
        "choices": [
            {"message": {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [wire_call]}}
        ]
    }
    message = parse_reply(reply, COMPATIBLE).message
    same = wire_of([message], COMPATIBLE)[0]
    other = wire_of([message], OFFICIAL)[0]
    assert same["reasoning_content"] == "hm"
    assert same["tool_calls"][0]["extra_content"] == {"sig": "s"}
    assert "reasoning_content" not in other
    assert "extra_content" not in other["tool_calls"][0]


@pytest.mark.parametrize(
    "data", [{"provider": "openai", "host": "llm.example", "toolCalls": 3, "message": "x"}, {"a": 1}]
)
def test_provider_data_written_by_hand_does_no_harm(data: dict[str, Any]) -> None:
    call = MessageToolCall(id="c1", function=ToolCallFunction(name="f", arguments="{}"))
    wire = wire_of([Message(role="assistant", tool_calls=[call], provider_data=data)], COMPATIBLE)[0]
    assert set(wire) == {"role", "content", "tool_calls"}


def test_missing_and_repeated_call_ids_are_replaced() -> None:
    wire_calls = [{"id": i, "function": {"name": "f", "arguments": "{}"}} for i in ("", "same", "same")]
    message = parse_reply({"choices": [{"message": {"tool_calls": wire_calls}}]}, COMPATIBLE).message
    assert len({c.id for c in message.tool_calls or []}) == 3


def test_argument_objects_and_content_parts_become_text() -> None:
    wire = {
        "content": [{"type": "text", "text": "a"}, {"type": "other"}, {"type": "text", "text": "b"}],
        "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"x": 1}}}],
    }
    message = parse_reply({"choices": [{"message": wire}]}, COMPATIBLE).message
    assert message.content == "ab"
    assert [c.function.arguments for c in message.tool_calls or []] == ['{"x":1}']


def test_a_refusal_is_the_answer() -> None:
    reply = {"choices": [{"message": {"content": None, "refusal": "I will not."}, "finish_reason": "stop"}]}
    completion = parse_reply(reply, OFFICIAL)
    assert completion.message.content == "I will not."
    assert completion.incomplete == "the model refused to answer"


@pytest.mark.parametrize("reply", [None, [], {}, {"choices": []}, {"choices": [3]}, {"choices": [{}]}, "x"])
def test_what_is_no_reply_is_a_broken_one(reply: Any) -> None:
    with pytest.raises(BrokenReplyError):
        parse_reply(reply, OFFICIAL)


@pytest.mark.parametrize(
    ("finish_reason", "expected"),
    [("stop", "neither text nor tool calls"), ("length", "maxTokens"), ("content_filter", "content filter")],
)
def test_an_empty_answer_says_why(finish_reason: str, expected: str) -> None:
    reply = {"choices": [{"message": {"content": ""}, "finish_reason": finish_reason}]}
    with pytest.raises(UnusableReplyError, match=expected):
        parse_reply(reply, OFFICIAL)


def test_a_truncated_answer_keeps_its_text_and_says_so() -> None:
    reply = {
        "choices": [{"message": {"content": "half an ans"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 9},
    }
    completion = parse_reply(reply, OFFICIAL)
    assert (completion.message.content, completion.stop_reason) == ("half an ans", "length")
    assert completion.incomplete == "the model reached its token limit: raise parameters.maxTokens"
    assert completion.usage.to_wire() == {"inputTokens": 3, "outputTokens": 4, "totalTokens": 9}


@pytest.mark.parametrize(
    ("finish_reason", "incomplete"), [("stop", ""), ("content_filter", "content filter cut it off")]
)
def test_only_a_part_of_an_answer_is_called_incomplete(finish_reason: str, incomplete: str) -> None:
    completion = parse_reply({"choices": [{"message": {"content": "a"}, "finish_reason": finish_reason}]}, OFFICIAL)
    assert bool(completion.incomplete) == bool(incomplete)
    assert incomplete in completion.incomplete


@pytest.mark.parametrize("reason", ["length", "model_length", "content_filter", "error"])
def test_a_tool_call_that_was_cut_off_is_not_made(reason: str) -> None:
    wire_call = {"id": "c", "function": {"name": "delete", "arguments": '{"path": "/home'}}
    reply = {"choices": [{"message": {"tool_calls": [wire_call]}, "finish_reason": reason}]}
    with pytest.raises(UnusableReplyError, match="in the middle of a tool call"):
        parse_reply(reply, COMPATIBLE)


@pytest.mark.parametrize("name", ["lookup_" + "x" * 80, "functions.lookup", "look up"])
def test_a_tool_name_that_the_model_made_up_goes_back_in_a_form_that_fits(name: str) -> None:
    call = MessageToolCall(id="c1", function=ToolCallFunction(name=name))
    for dialect in (OFFICIAL, COMPATIBLE):
        (sent,) = wire_of([Message(role="assistant", tool_calls=[call])], dialect)[0]["tool_calls"]
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", sent["function"]["name"])
