"""Bytes to messages: however they are cut into chunks, whatever is between them, never without a bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import JSONRPCNotification

from kubechain_mcp_host.stdio.message_reader import FloodError, MessageReader, parse_message

NOTE = b'{"jsonrpc": "2.0", "method": "m%d"}'
NOISE = st.sampled_from([b"", b"Listening...", b"\xff\xfe", b"[]", b'{"json": "but not rpc"}', b"{", b"{" * 2000])


def methods(reader: MessageReader, chunks: list[bytes]) -> list[str]:
    found = [message for chunk in chunks for message in reader.feed(chunk)]
    assert all(isinstance(message, JSONRPCNotification) for message in found)
    return [message.method for message in found if isinstance(message, JSONRPCNotification)]


@given(st.lists(NOISE, max_size=8), st.integers(1, 50))
def test_chunks_and_noise_make_no_difference(noise: list[bytes], size: int) -> None:
    text = b"".join(line + b"\n" + NOTE % index + b"\r\n" for index, line in enumerate(noise))
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    assert methods(MessageReader(), chunks) == [f"m{index}" for index in range(len(noise))]


@pytest.mark.parametrize("chunk", [b"x" * 10, b"x\n" * 5])
def test_output_without_an_end_is_refused(chunk: bytes) -> None:
    reader = MessageReader(limit=1000)
    with pytest.raises(FloodError, match="sent more than 1,000 bytes"):
        methods(reader, [chunk] * 101)


def test_every_message_starts_the_count_anew() -> None:
    assert len(methods(MessageReader(limit=100), [b"noise\n" + NOTE % 1 + b"\n"] * 1000)) == 1000


def test_a_message_with_broken_text_is_mended() -> None:
    message = parse_message(b'{"jsonrpc": "2.0", "method": "a\\ud800\xff\\ud83d\\ude00"}')
    assert isinstance(message, JSONRPCNotification)
    assert message.method == "a\ufffd\ufffd\U0001f600"
