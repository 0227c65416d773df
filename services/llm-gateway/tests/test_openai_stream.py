"""A reply that is cut into chunks in any way that servers cut it is the same reply again."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.testing.arbitrary import JSON, fuzz
from kubechain_llm_gateway.protocols.dialect import Dialect
from kubechain_llm_gateway.protocols.openai_mapping import parse_reply
from kubechain_llm_gateway.protocols.openai_stream import ChatAccumulator
from kubechain_llm_gateway.protocols.sse import FailureInStreamError
from kubechain_llm_gateway.protocols.wire_json import join_halves
from kubechain_llm_gateway.providers.errors import ProviderError

DIALECT = Dialect("localhost", official=False)
UNKNOWN = st.text("xyz_", min_size=1, max_size=4)


def rebuild(*chunks: Any, done: bool = True) -> tuple[Any, str]:
    accumulator = ChatAccumulator()
    text = "".join([accumulator.add(json.dumps(chunk).encode()) for chunk in chunks])
    if done:
        accumulator.add(b"[DONE]")
        assert accumulator.ended
    assert accumulator.complete
    return accumulator.build_reply(), text


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields}]}


def end(reason: str = "stop") -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


CALLS = st.lists(
    st.builds(
        lambda number, name, arguments, extras: {
            **extras,
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        },
        st.uuids(),
        st.text("abc", min_size=1),
        st.text(),
        st.dictionaries(UNKNOWN, JSON, max_size=2),
    ),
    min_size=1,
    max_size=3,
)
DETAILS = st.lists(st.text(), min_size=1, max_size=3).map(
    lambda texts: [{"index": i, "type": "reasoning.text", "text": text} for i, text in enumerate(texts)]
)
MESSAGES = st.builds(
    lambda extras, known: {**extras, "role": "assistant", **known},
    st.dictionaries(UNKNOWN, JSON, max_size=3),
    st.fixed_dictionaries(
        {"content": st.none() | st.text()},
        optional={
            "refusal": st.none() | st.text(),
            "reasoning_content": st.text(),
            "reasoning_details": DETAILS,
            "tool_calls": CALLS,
        },
    ),
)
REPLIES = st.builds(
    lambda extras, message, reason, usage: {
        **extras,
        "id": "r",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        **usage,
    },
    st.dictionaries(UNKNOWN, JSON, max_size=3),
    MESSAGES,
    st.sampled_from(["stop", "length", "tool_calls"]),
    st.fixed_dictionaries({}, optional={"usage": st.dictionaries(st.sampled_from(["prompt_tokens"]), st.integers(0))}),
)


def cut_text(draw: st.DrawFn, text: str) -> list[str]:
    """Pieces that join to the text; a character outside the basic plane may be cut in half."""
    units = text.encode("utf-16-le", "surrogatepass")
    places = sorted(draw(st.lists(st.integers(0, len(units) // 2), max_size=3)))
    bounds = [0, *places, len(units) // 2]
    pieces = pairwise(bounds)
    return [units[2 * a : 2 * b].decode("utf-16-le", "surrogatepass") for a, b in pieces]


def cut_message(draw: st.DrawFn, message: dict[str, Any]) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = []
    for key, value in message.items():
        if key == "role" or not isinstance(value, str | list):
            deltas.append({key: value})
        elif isinstance(value, str):
            deltas += [{key: piece} for piece in cut_text(draw, value)]
        elif key == "reasoning_details":
            for item in value:
                deltas += [{key: [{**item, "text": piece}]} for piece in cut_text(draw, item["text"])]
        elif key != "tool_calls":
            deltas += [{key: value}]
    for index, call in enumerate(message.get("tool_calls", ())):
        first, *pieces = cut_text(draw, call["function"]["arguments"])
        begin = {**call, "index": index, "function": {"name": call["function"]["name"], "arguments": first}}
        again = {"id": call["id"], "type": "function"} if draw(st.booleans()) else {}
        deltas.append({"tool_calls": [begin]})
        deltas += [{"tool_calls": [{**again, "index": index, "function": {"arguments": p}}]} for p in pieces]
    return deltas


@st.composite
def streams(draw: st.DrawFn) -> tuple[Any, list[Any]]:
    reply = draw(REPLIES)
    (choice,) = reply["choices"]
    rest = {key: value for key, value in reply.items() if key not in ("choices", "usage")}
    envelope = {**rest, "object": "chat.completion.chunk", "usage": None}
    nothing = {"index": 0, "finish_reason": None}
    chunks = [{**envelope, "choices": [{**nothing, "delta": d}]} for d in cut_message(draw, choice["message"])]
    chunks.append({**envelope, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    if "usage" in reply:
        chunks.append({**envelope, "choices": [], "usage": reply["usage"], "obfuscation": "xx"})
    return reply, chunks


@fuzz
@given(streams())
def test_a_reply_in_chunks_is_the_reply(stream: tuple[Any, list[Any]]) -> None:
    reply, chunks = stream
    rebuilt, text = rebuild(*chunks)
    rebuilt.setdefault("usage", None)
    assert rebuilt == {"usage": None, **reply}
    assert join_halves(text) == (reply["choices"][0]["message"]["content"] or "")


@fuzz
@given(
    st.lists(
        JSON
        | st.dictionaries(st.sampled_from(["choices", "id", "error"]), JSON)
        | JSON.map(
            lambda value: {
                "choices": [
                    {"delta": value, "index": value, "logprobs": value},
                    {
                        "delta": {"tool_calls": [value, {"function": value, "index": value, "id": value}]},
                        "message": value,
                    },
                ]
            }
        )
    )
)
def test_no_chunk_is_more_than_a_providers_error(chunks: list[Any]) -> None:
    accumulator = ChatAccumulator()
    for chunk in chunks:
        with suppress(ValueError, FailureInStreamError):
            assert isinstance(accumulator.add(json.dumps(chunk).encode()), str)
    with suppress(ProviderError):
        parse_reply(accumulator.build_reply(), DIALECT)


def calls_of(*chunks: Any) -> list[tuple[Any, ...]]:
    reply, _ = rebuild(*chunks, end("tool_calls"))
    calls = reply["choices"][0]["message"]["tool_calls"]
    return [(call.get("id"), call["function"]["name"], call["function"]["arguments"]) for call in calls]


def call(arguments: str, **fields: Any) -> dict[str, Any]:
    name = fields.pop("name", None)
    return {**fields, "function": {**({"name": name} if name else {}), "arguments": arguments}}


def test_parallel_calls_are_told_apart_by_index_or_by_id_or_by_name() -> None:
    first, second = ("a", "f", "{1}"), ("b", "g", "{2}")
    interleaved = [
        delta(tool_calls=[call("", index=0, id="a", name="f"), call("{", index=1, id="b", name="g")]),
        delta(tool_calls=[call("{1}", index=0), call("2}", index=1)]),
    ]
    same_index = [delta(tool_calls=[call(c[2], index=0, id=c[0], name=c[1])]) for c in (first, second)]
    no_index = [
        delta(tool_calls=[call("{", id="a", name="f")]),
        delta(tool_calls=[call("1}")]),
        delta(tool_calls=[call("{2}", id="b", name="g")]),
    ]
    assert calls_of(*interleaved) == calls_of(*same_index) == calls_of(*no_index) == [first, second]
    nameless = [delta(tool_calls=[call("{}", name="f")]), delta(tool_calls=[call("{}", name="f")])]
    assert calls_of(*nameless) == [(None, "f", "{}")] * 2


def test_a_name_may_come_in_pieces_or_again_with_each_piece() -> None:
    again = [delta(tool_calls=[call(piece, index=0, id="a", name="look")]) for piece in ("{", "}")]
    pieces = [
        delta(tool_calls=[call("", index=0, id="a", name="lo")]),
        delta(tool_calls=[call("{}", index=0, name="ok")]),
    ]
    assert calls_of(*again) == calls_of(*pieces) == [("a", "look", "{}")]


def test_content_may_be_a_list_of_parts() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
    reply, text = rebuild(
        delta(content=parts), delta(content="hel"), delta(content=[{"type": "text", "text": "lo"}]), end()
    )
    assert text == "hello"
    assert parse_reply(reply, DIALECT).message.content == "hello"
    reply, _ = rebuild(delta(content="hel"), delta(content=[{"type": "text", "text": "lo"}]), end())
    assert parse_reply(reply, DIALECT).message.content == "hello"


def test_a_whole_message_at_the_end_replaces_its_pieces() -> None:
    whole = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}]}
    reply, _ = rebuild(delta(role="assistant", content="hel"), delta(content="lo"), whole)
    assert reply["choices"][0]["message"] == {"role": "assistant", "content": "hello"}


def test_the_last_word_on_usage_counts() -> None:
    reply, _ = rebuild({**delta(content="a"), "usage": {"prompt_tokens": 1}}, {**end(), "usage": {"prompt_tokens": 9}})
    assert reply["usage"] == {"prompt_tokens": 9}


def test_a_stream_is_complete_with_its_finish_reason_or_its_end() -> None:
    rebuild(delta(content="a"), end(), done=False)
    rebuild(delta(content="a"))
    accumulator = ChatAccumulator()
    accumulator.add(json.dumps(delta(content="a")).encode())
    assert not accumulator.complete


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"message": "m", "code": 429}, 429),
        ({"message": "m", "code": "503"}, 503),
        ({"message": "m", "type": "invalid_request_error", "code": None}, 400),
        ({"message": "m", "type": "odd"}, 502),
        ("words", 502),
    ],
)
def test_a_failure_has_the_status_that_it_would_have_had(error: Any, status: int) -> None:
    accumulator = ChatAccumulator()
    with pytest.raises(FailureInStreamError) as raised:
        accumulator.add(json.dumps({"error": error, "choices": []}).encode())
    assert raised.value.status == status


@pytest.mark.parametrize("field", ["tool_calls", "parts"])
def test_the_cost_of_parallel_items_grows_with_their_number_only(field: str) -> None:
    """One event of 300 KB whose cost grew with its square held up every other call for seconds."""
    chunk = json.dumps(delta(**{field: [{"index": i, "function": {"name": "f"}} for i in range(10_000)]})).encode()
    accumulator = ChatAccumulator()
    started = time.process_time()
    accumulator.add(chunk)
    accumulator.add(chunk)
    assert time.process_time() - started < 2
    (choice,) = accumulator.build_reply()["choices"]
    assert len(choice["message"][field]) == 10_000
