"""Keeps the last words of a stdio server: what it wrote to stderr is often the only reason there is for its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TextIO

import anyio

MAX_BYTES = 1024
_LAST_WORDS_SECONDS = 0.3
"""How long output of a process that has ended may still be on its way; something that it left behind may hold the
pipe open.
"""


class StderrTail(asyncio.Protocol):
    """The last ``MAX_BYTES`` of what came through a pipe."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._cut = False
        self._ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > MAX_BYTES:
            del self._buffer[:-MAX_BYTES]
            self._cut = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set()

    def text(self) -> str:
        """What was kept, from the start of a line where possible."""
        text = self._buffer.decode(errors="replace").strip()
        if not self._cut:
            return text
        _, newline, rest = text.partition("\n")
        return "..." + (rest if newline else text)

    @asynccontextmanager
    async def pipe(self) -> AsyncIterator[TextIO]:
        """The end of the pipe to give to a child as its stderr. Close it here once the child has it: only then can it
        end.
        """
        reader, writer = os.pipe()
        with os.fdopen(writer, "w") as child_end:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: self, os.fdopen(reader, "rb", 0))
            try:
                yield child_end
            finally:
                child_end.close()
                # Shielded: the reason of an end matters most when the connection was given up.
                with anyio.move_on_after(_LAST_WORDS_SECONDS, shield=True):
                    await self._ended.wait()
                transport.close()
