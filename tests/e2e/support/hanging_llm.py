"""An LLM that never answers, and notices who hangs up."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Self


class HangingLLM:
    """Lists a model, as an LLM has to become ready; a chat request is held for ever.

    ``asked`` counts chat requests, ``hung_up`` those whose client closed the connection.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.hung_up = 0
        self._server: asyncio.Server
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in self._open.values():
            writer.transport.abort()
        await asyncio.gather(*self._open)

    @property
    def url(self) -> str:
        """The base URL to put into an LLM."""
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.current_task()
        assert handler is not None
        self._open[handler] = writer
        try:
            await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it hung up before it had asked
        finally:
            writer.close()
            del self._open[handler]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            self.asked += 1
            await reader.read(-1)  # until the client closes its side
            self.hung_up += 1
        else:
            body = json.dumps({"object": "list", "data": [{"id": "gpt-4o", "object": "model"}]}).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                + f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
