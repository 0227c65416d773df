from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.testing.arbitrary import fuzz
from kubechain_llm_gateway.protocols.sse import SSEParser, decode_event, looks_like_events, status_of


def parse(*chunks: bytes) -> list[bytes]:
    parser = SSEParser()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return events + parser.finish()


def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """(what the events hold, the bytes as they arrive)"""
    end = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    events = draw(st.lists(st.text(max_size=9).filter(lambda text: not set(text) & set("\r\n")).map(str.encode)))
    noise = st.sampled_from([b"", b": ping" + end, b"event: message" + end, b"retry: 3" + end + b"id: 1" + end])
    data = b"".join(draw(noise) + b"data: " + event + end + end for event in events)
    return events, cut(draw, draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + data)


@fuzz
@given(streams())
def test_events_arrive_however_the_network_cut_them(stream: tuple[list[bytes], list[bytes]]) -> None:
    events, chunks = stream
    assert parse(*chunks) == events


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"data:x\n\n", [b"x"]),
        (b"data:  x\n\n", [b" x"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: [DONE]", [b"[DONE]"]),
        (b"data: a\n\n\n\n: comment\n\n", [b"a"]),
        (b"database: a\n\n", []),
        (b"", []),
    ],
)
def test_forms_of_an_event(data: bytes, events: list[bytes]) -> None:
    assert parse(data) == events


@pytest.mark.parametrize("body", [b"data: x\n\n", b"\n\nevent: x\n", b": hello\n", b"\xef\xbb\xbfdata: x"])
def test_a_stream_is_known_by_its_first_line(body: bytes) -> None:
    assert looks_like_events(body)
    assert not looks_like_events(b'{"data": "data: x"}')


@pytest.mark.parametrize("value", [10**30, -(2**63) - 1, "\ud83d", 1e300, {"a": [1, None, "ä😀"]}])
def test_every_value_is_read_as_it_is(value: object) -> None:
    assert decode_event(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("code", "status"),
    [(429, 429), ("503", 503), ("slow", 420), ("odd", 502), (200, 502), (None, 502), ("9" * 99, 502)],
)
def test_the_status_of_a_failure(code: object, status: int) -> None:
    assert status_of(code, {"slow": 420}) == status
