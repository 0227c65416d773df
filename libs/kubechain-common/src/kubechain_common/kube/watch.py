"""The stream of a watch: one JSON object a line.

Lines are split here and not by aiohttp, whose readline refuses lines over its buffer; an object may be more than a
megabyte.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
import orjson

from kubechain_common.kube.deep_json import load
from kubechain_common.kube.errors import UnavailableError, build_status_error


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """``type`` is ADDED, MODIFIED, DELETED or BOOKMARK; ``object`` as it came, metadata only for a bookmark."""

    type: str
    object: dict[str, Any]


class LineBuffer:
    """Puts lines together from chunks of any size, in time linear in their length."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that this chunk completes; blank ones are left out."""
        *ends, rest = chunk.split(b"\n")
        lines = []
        for end in ends:
            self._parts.append(end)
            line = b"".join(self._parts)
            self._parts.clear()
            if line:
                lines.append(line)
        if rest:
            self._parts.append(rest)
        return lines


class WatchStream:
    """Iterates over the events of an open watch; ends when the server closes it.

    Raises GoneError when the history is lost, UnavailableError when the connection breaks or stays silent for too long.
    """

    def __init__(self, request: str, response: aiohttp.ClientResponse) -> None:
        self._request = request
        self._content = response.content
        self._buffer = LineBuffer()
        self._lines: deque[bytes] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchEvent:
        while not self._lines:
            chunk = await self._read()
            if not chunk:
                raise StopAsyncIteration
            self._lines.extend(self._buffer.feed(chunk))
        return self._parse(self._lines.popleft())

    async def _read(self) -> bytes:
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise UnavailableError(f"{self._request}: the watch broke off: {reason}") from error

    def _parse(self, line: bytes) -> WatchEvent:
        try:
            raw = load(line)
            event = WatchEvent(raw["type"], raw["object"])
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise UnavailableError(f"{self._request}: the watch sent something that is not an event") from error
        if event.type == "ERROR":
            raise build_status_error(self._request, event.object)
        return event
