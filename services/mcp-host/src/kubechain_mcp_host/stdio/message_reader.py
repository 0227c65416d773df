"""Cuts what a stdio server prints into MCP messages, within bounds that hold whatever it prints (pure).

A server shares its stdout with everything else in its process, so text that is no message is skipped. What is not
accepted is output without an end: a message, or the noise before one, may have ``MAX_BYTES``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from mcp_types import JSONRPCMessage, jsonrpc_message_adapter

from kubechain_common.api.unicode_text import mend

MAX_BYTES = 16 * 1024 * 1024
"""Far more than the part of a result that a model gets to read: pictures, which are only named, take most of it."""


class FloodError(Exception):
    """The message is the end of a sentence about the server."""


class MessageReader:
    """Feed it chunks; it holds no more than ``limit`` bytes, and time is linear in what it is fed."""

    def __init__(self, limit: int = MAX_BYTES) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._seen = 0

    def feed(self, chunk: bytes) -> Iterator[JSONRPCMessage]:
        """The messages that the chunk completes. Raises FloodError when there is too much before the next one."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            line = b"".join((*self._parts, end))
            self._parts.clear()
            self._count(len(end) + 1)
            message = parse_message(line)
            if message is not None:
                self._seen = 0
                yield message
        self._count(len(rest))
        if rest:
            self._parts.append(rest)

    def _count(self, size: int) -> None:
        self._seen += size
        if self._seen > self._limit:
            self._parts.clear()
            raise FloodError(f"sent more than {self._limit:,} bytes that are not, or not yet, a message")


def parse_message(line: bytes) -> JSONRPCMessage | None:
    """The message in a line; None for a line that is none."""
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        return jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        return _repair(line)


def _repair(line: bytes) -> JSONRPCMessage | None:
    """The message in a line whose text is not all Unicode (a stray byte, half a surrogate pair): it is still somebody's
    answer.
    """
    try:
        text = json.dumps(json.loads(line.decode(errors="replace")), ensure_ascii=False)
        return jsonrpc_message_adapter.validate_json(mend(text), by_name=False)
    except (ValueError, RecursionError):
        return None
