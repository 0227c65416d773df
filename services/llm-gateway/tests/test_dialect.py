"""Any conversation of ours maps to the wire and back without loss, in every dialect and for every protocol.

What a dialect rewrites it rewrites the same way every time: a call and its result keep one id, two calls keep two.
"""

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
from kubechain_llm_gateway.protocols import anthropic_mapping, openai_mapping
from kubechain_llm_gateway.protocols.dialect import Dialect
from kubechain_llm_gateway.protocols.model_families import claude_version, gemini_version
from kubechain_llm_gateway.protocols.wire_ids import fit_id
from kubechain_llm_gateway.protocols.wire_json import encode, parse_arguments

DIALECTS = {
    "openai": Dialect("api.openai.com", official=True),
    "azure": Dialect("r.openai.azure.com", official=True, before_completion_tokens=True),
    "compatible": Dialect("llm.example"),
    "mistral": Dialect("api.mistral.ai", mistral=True),
    "gemini": Dialect("generativelanguage.googleapis.com", gemini=True),
}
PARAMETERS = LLMParameters(model="gemini-3-pro")
every_dialect = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)

text = st.text(max_size=40)
ids = st.text(min_size=1, max_size=60)
calls = st.lists(
    st.builds(
        MessageToolCall,
        id=ids,
        function=st.builds(ToolCallFunction, name=st.text(alphabet="abc_-", min_size=1, max_size=20), arguments=text),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda call: call.id,
)
messages = st.lists(
    st.one_of(
        st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=text),
        st.builds(Message, role=st.just("assistant"), content=text, tool_calls=calls),
        st.builds(Message, role=st.just("tool"), content=text, tool_call_id=ids),
    ),
    max_size=8,
)
replies = st.lists(st.tuples(ids, st.dictionaries(text, text, max_size=2)), max_size=4, unique_by=lambda c: c[0])


def facts_of(message: Message, dialect: Dialect) -> tuple[Any, ...]:
    """What the model must get to know of a message; ids as the dialect writes them, arguments as values."""
    made = [
        (dialect.fit_call_id(c.id), c.function.name, _value(c.function.arguments)) for c in message.tool_calls or ()
    ]
    answered = dialect.fit_call_id(message.tool_call_id or "") if message.role == "tool" else None
    return message.role, message.content, made, answered


def facts_on_wire(wire: dict[str, Any]) -> tuple[Any, ...]:
    made = [(c["id"], c["function"]["name"], _value(c["function"]["arguments"])) for c in wire.get("tool_calls") or ()]
    return wire["role"], wire["content"] or "", made, wire.get("tool_call_id")


def _value(arguments: str) -> str:
    return json.dumps(parse_arguments(arguments), sort_keys=True)


@every_dialect
@given(conversation=messages)
def test_a_conversation_goes_out_whole_and_in_order(dialect: Dialect, conversation: list[Message]) -> None:
    body = json.loads(encode(openai_mapping.build_request(conversation, [], PARAMETERS, dialect)))
    assert [facts_on_wire(wire) for wire in body["messages"]] == [facts_of(m, dialect) for m in conversation]


@every_dialect
@given(conversation=messages, text=text.filter(str.strip), made=replies)
def test_a_reply_comes_back_whole_and_goes_out_the_same(
    dialect: Dialect, conversation: list[Message], text: str, made: list[tuple[str, dict[str, str]]]
) -> None:
    wire_calls: list[dict[str, Any]] = [
        {"id": i, "type": "function", "function": {"name": "f", "arguments": json.dumps(a)}, "extra_content": {"n": i}}
        for i, a in made
    ]
    wire = {"role": "assistant", "content": text, "tool_calls": wire_calls}
    message = openai_mapping.parse_reply({"choices": [{"message": wire}]}, dialect).message
    fitted = [{**c, "id": dialect.fit_call_id(c["id"])} for c in wire_calls]
    assert facts_of(message, dialect) == facts_on_wire({**wire, "tool_calls": fitted})
    stored = Message.model_validate_json(message.model_dump_json())
    sent = openai_mapping.build_request([*conversation, stored], [], PARAMETERS, dialect)["messages"][-1]
    assert [c["extra_content"] for c in sent.get("tool_calls", [])] == [c["extra_content"] for c in wire_calls]


@given(
    made=st.lists(st.tuples(ids, st.dictionaries(text, text, max_size=2)), max_size=4),
    said=text.filter(str.strip),
    cached=st.booleans(),
)
def test_an_anthropic_reply_comes_back_whole_and_goes_out_the_same(
    made: list[tuple[str, dict[str, str]]], said: str, cached: bool
) -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    blocks: list[dict[str, Any]] = [thought, {"type": "text", "text": said}]
    blocks += [{"type": "tool_use", "id": i, "name": "f", "input": a} for i, a in made]
    message = anthropic_mapping.parse_reply({"content": blocks}).message
    stored = Message.model_validate_json(message.model_dump_json())
    results = [Message(role="tool", tool_call_id=i, content="r") for i, _ in made]
    body = anthropic_mapping.build_request(
        [Message(role="user", content="hi"), stored, *results], [], PARAMETERS, cached=cached
    )
    sent = [{k: v for k, v in block.items() if k != "cache_control"} for block in body["messages"][1]["content"]]
    assert sent == blocks


@given(ids, ids)
def test_mistral_gets_nine_letters_or_digits_and_two_ids_stay_two(one: str, other: str) -> None:
    mistral = DIALECTS["mistral"]
    assert re.fullmatch(r"[a-zA-Z0-9]{9}", mistral.fit_call_id(one))
    assert (mistral.fit_call_id(one) == mistral.fit_call_id(other)) == (one == other)


def test_mistrals_own_ids_and_no_names_go_to_mistral() -> None:
    mistral = DIALECTS["mistral"]
    assert mistral.fit_call_id("D681PevKs") == "D681PevKs"
    sent = openai_mapping.build_request([Message(role="user", content="hi", name="ann")], [], PARAMETERS, mistral)
    assert sent["messages"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("openai", "max_completion_tokens"),
        ("azure", "max_tokens"),
        ("compatible", "max_tokens"),
        ("gemini", "max_tokens"),
    ],
)
def test_the_limit_has_the_name_that_the_host_knows(name: str, field: str) -> None:
    body = openai_mapping.build_request([], [], LLMParameters(model="m", max_tokens=9), DIALECTS[name])
    assert body[field] == 9


def test_a_tool_without_arguments_has_no_schema_at_gemini() -> None:
    tools = [
        ToolDefinition(name="bare", parameters={"type": "object", "properties": {}}),
        ToolDefinition(name="t", parameters={"$schema": "x", "type": "object", "properties": {"a": {}}}),
    ]
    functions = [
        t["function"] for t in openai_mapping.build_request([], tools, PARAMETERS, DIALECTS["gemini"])["tools"]
    ]
    assert functions == [{"name": "bare"}, {"name": "t", "parameters": {"type": "object", "properties": {"a": {}}}}]


@pytest.mark.parametrize(
    ("model", "version"),
    [
        ("claude-sonnet-4-5-20250929", (4, 5)),
        ("claude-opus-4-20250514", (4, 0)),
        ("claude-opus-4-1@20250805", (4, 1)),
        ("claude-sonnet-5", (5, 0)),
        ("claude-haiku-5-5", (5, 5)),
        ("claude-3-5-sonnet-latest", (3, 5)),
        ("claude-3-opus-20240229", (3, 0)),
        ("claude-2.1", (2, 1)),
        ("claude-mythos-preview", None),
        ("gpt-4o", None),
    ],
)
def test_the_version_of_a_claude(model: str, version: tuple[int, int] | None) -> None:
    assert claude_version(model) == version


@pytest.mark.parametrize(
    ("model", "version"), [("gemini-2.5-flash", (2, 5)), ("google/gemini-3-pro", (3, 0)), ("gemma-3-27b", None)]
)
def test_the_version_of_a_gemini(model: str, version: tuple[int, int] | None) -> None:
    assert gemini_version(model) == version


def test_ids_of_openai_stay_as_they_are_when_they_fit() -> None:
    assert DIALECTS["openai"].fit_call_id("call with spaces") == "call with spaces"
    assert DIALECTS["openai"].fit_call_id("x" * 41) == fit_id("x" * 41, 40)
