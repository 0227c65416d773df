"""A reply that comes as events is the same reply again, block by block."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.testing.arbitrary import JSON, fuzz
from kubechain_llm_gateway.protocols.anthropic_mapping import parse_reply
from kubechain_llm_gateway.protocols.anthropic_stream import MessageAccumulator
from kubechain_llm_gateway.protocols.sse import FailureInStreamError
from kubechain_llm_gateway.providers.errors import ProviderError

UNKNOWN = st.text("xyz_", min_size=1, max_size=4)
INPUTS = st.dictionaries(st.text(), JSON, max_size=3)
BLOCKS = st.one_of(
    st.builds(
        lambda text, citations: {"type": "text", "text": text, "citations": citations},
        st.text(),
        st.none() | st.lists(JSON, min_size=1, max_size=2),
    ),
    st.builds(lambda text, sign: {"type": "thinking", "thinking": text, "signature": sign}, st.text(), st.text()),
    st.builds(lambda data: {"type": "redacted_thinking", "data": data}, st.text()),
    st.builds(lambda i, n, v: {"type": "tool_use", "id": str(i), "name": n, "input": v}, st.uuids(), st.text(), INPUTS),
    st.builds(lambda extras: {"type": "web_search_tool_result", **extras}, st.dictionaries(UNKNOWN, JSON, max_size=3)),
)
REPLIES = st.builds(
    lambda extras, blocks, reason, usage: {
        **extras,
        "id": "r",
        "type": "message",
        "role": "assistant",
        "content": blocks,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": usage,
    },
    st.dictionaries(UNKNOWN, JSON, max_size=3),
    st.lists(BLOCKS, max_size=4),
    st.sampled_from(["end_turn", "tool_use", "max_tokens"]),
    st.fixed_dictionaries({"input_tokens": st.integers(0, 99), "output_tokens": st.integers(0, 99)}),
)


def cut_text(draw: st.DrawFn, text: str) -> list[str]:
    units = text.encode("utf-16-le", "surrogatepass")
    places = sorted(draw(st.lists(st.integers(0, len(units) // 2), max_size=3)))
    bounds = [0, *places, len(units) // 2]
    return [units[2 * a : 2 * b].decode("utf-16-le", "surrogatepass") for a, b in pairwise(bounds)]


def cut_block(draw: st.DrawFn, index: int, block: dict[str, Any]) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = []
    start = block
    match block["type"]:
        case "text":
            start = {**block, "text": "", "citations": None if block["citations"] is None else []}
            deltas = [{"type": "text_delta", "text": piece} for piece in cut_text(draw, block["text"])]
            deltas += [{"type": "citations_delta", "citation": c} for c in block["citations"] or ()]
        case "thinking":
            start = {**block, "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": p} for p in cut_text(draw, block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        case "tool_use":
            start = {**block, "input": {}}
            text = json.dumps(block["input"], ensure_ascii=draw(st.booleans())) if block["input"] else ""
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in cut_text(draw, text)]
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


@st.composite
def streams(draw: st.DrawFn) -> tuple[Any, list[Any]]:
    reply = draw(REPLIES)
    usage = {"input_tokens": reply["usage"]["input_tokens"], "output_tokens": 1}
    events: list[Any] = [
        {"type": "message_start", "message": {**reply, "content": [], "stop_reason": None, "usage": usage}}
    ]
    for index, block in enumerate(reply["content"]):
        events += cut_block(draw, index, block)
        events += draw(st.lists(st.just({"type": "ping"}), max_size=1))
    end = {"stop_reason": reply["stop_reason"], "stop_sequence": None}
    events.append({"type": "message_delta", "delta": end, "usage": {"output_tokens": reply["usage"]["output_tokens"]}})
    return reply, [*events, {"type": "message_stop"}]


def rebuild(events: list[Any]) -> tuple[Any, str]:
    accumulator = MessageAccumulator()
    text = "".join([accumulator.add(json.dumps(event).encode()) for event in events])
    assert accumulator.ended
    assert accumulator.complete
    return accumulator.build_reply(), text


@fuzz
@given(streams())
def test_a_reply_in_events_is_the_reply(stream: tuple[Any, list[Any]]) -> None:
    reply, events = stream
    rebuilt, text = rebuild(events)
    assert rebuilt == reply
    shown = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert shown == "".join(block["text"] for block in reply["content"] if block["type"] == "text")


ODD = st.sampled_from(
    ["message_start", "content_block_start", "content_block_delta", "message_delta", "message_stop", "x"]
)


@fuzz
@given(
    st.lists(
        JSON
        | st.builds(
            lambda kind, value, index: {
                "type": kind,
                "index": index,
                "message": value,
                "content_block": value,
                "delta": value,
                "usage": value,
            },
            ODD,
            JSON | st.dictionaries(st.sampled_from(["type", "text", "partial_json"]), JSON | ODD),
            st.integers(0, 1) | JSON,
        )
    )
)
def test_no_event_is_more_than_a_providers_error(events: list[Any]) -> None:
    accumulator = MessageAccumulator()
    for event in events:
        with suppress(ValueError, FailureInStreamError):
            assert isinstance(accumulator.add(json.dumps(event).encode()), str)
    with suppress(ProviderError):
        parse_reply(accumulator.build_reply())


def test_an_input_that_was_cut_off_is_kept_as_it_is() -> None:
    events = [
        {"type": "message_start", "message": {"content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "a", "name": "f"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"a": '}},
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}},
        {"type": "message_stop"},
    ]
    reply, _ = rebuild(events)
    assert reply["content"][0]["input"] == {"_unparsable_arguments": '{"a": '}


def test_counts_that_come_at_the_end_replace_those_of_the_beginning() -> None:
    start = {"usage": {"input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": 2}}
    late = {"input_tokens": 7, "output_tokens": 9, "cache_read_input_tokens": None}
    reply, _ = rebuild(
        [
            {"type": "message_start", "message": start},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": late},
            {"type": "message_stop"},
        ]
    )
    assert reply["usage"] == {"input_tokens": 7, "output_tokens": 9, "cache_read_input_tokens": 2}


@pytest.mark.parametrize(
    ("kind", "status"), [("overloaded_error", 529), ("invalid_request_error", 400), ("odd", 502), (None, 502)]
)
def test_a_failure_has_the_status_that_it_would_have_had(kind: str | None, status: int) -> None:
    event = {"type": "error", "error": {"type": kind, "message": "m"}}
    with pytest.raises(FailureInStreamError) as raised:
        MessageAccumulator().add(json.dumps(event).encode())
    assert raised.value.status == status
