"""Server-sent events, as far as LLM providers use them: a stream of bytes becomes the data of one event after another.

Pure. Names, ids and comments are dropped: every protocol that we speak says within its data what an event is.
"""

from __future__ import annotations

import json
import re
from typing import Any, Protocol

import orjson

from kubechain_llm_gateway.protocols.wire_json import refuse_oversized

_LONG_NUMBER = re.compile(rb"\d{19}")
_BOM = b"\xef\xbb\xbf"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")


class ReplyAccumulator(Protocol):
    """Rebuilds from the events of a stream the reply that the provider gives where it does not stream.

    ``ended`` says that nothing follows, ``complete`` that the model has finished, so the reply may be used, whatever is
    missing.
    """

    @property
    def ended(self) -> bool: ...

    @property
    def complete(self) -> bool: ...

    def add(self, data: bytes) -> str:
        """Take the data of one event in; returns the text that the answer grew by.

        Raises:
            FailureInStreamError: it tells of a failure.
            ValueError: it is no event of the protocol.
        """

    def build_reply(self) -> Any:
        """The reply so far."""


class FailureInStreamError(Exception):
    """The provider failed after it had begun to answer. ``status`` is the HTTP status it would have had before."""

    def __init__(self, status: int, body: object) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.body = body


class SSEParser:
    """Cuts what arrives into events; the cost does not depend on how it was cut on the way."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._begun = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that end in this chunk."""
        self._rest += chunk
        if b"\n" not in chunk and b"\r" not in chunk:
            return []
        text = bytes(self._rest)
        self._rest.clear()
        if text.endswith(b"\r"):  # half of a line's end, perhaps
            text = text[:-1]
            self._rest += b"\r"
        if not self._begun:
            self._begun = True
            text = text.removeprefix(_BOM)
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        self._rest[:0] = rest
        return self._take(lines)

    def finish(self) -> list[bytes]:
        """The event that was not ended in form when the stream was, if there is one."""
        return self.feed(b"\n\n")

    def _take(self, lines: list[bytes]) -> list[bytes]:
        events: list[bytes] = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line and self._data:
                events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data.clear()
        return events


def looks_like_events(body: bytes) -> bool:
    """Whether a body is an event stream, whatever its content type says."""
    return body.removeprefix(_BOM).lstrip().startswith(_FIELDS)


def decode_event(data: bytes) -> Any:
    """The JSON value of an event. Half characters stay as they are: the other half may be in the next event.

    Raises:
        ValueError: it is no JSON, or too large.
    """
    refuse_oversized(data)
    if not _LONG_NUMBER.search(data):  # orjson turns integers over 64 bits into floats
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            pass
    return json.loads(data)


def status_of(code: Any, known: dict[str, int]) -> int:
    """The HTTP status for an error's code or type; 502 for one that is not known."""
    if isinstance(code, str) and code.isascii() and code.isdigit():
        code = int(code[:4])
    if isinstance(code, int) and 400 <= code <= 599:
        return code
    return known.get(code, 502) if isinstance(code, str) else 502
