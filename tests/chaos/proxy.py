"""A TCP proxy that can be told to misbehave: what stands between one service and one of the two that it needs."""

from __future__ import annotations

import asyncio
import socket
import struct
from enum import StrEnum

_CHUNK = 1 << 18
_ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing sends RST."""


class Mode(StrEnum):
    FORWARD = "forward"
    REFUSE = "refuse"
    """Nobody listens, and every connection is closed."""
    BLACKHOLE = "blackhole"
    """Connections are accepted and kept; nothing comes through in either direction."""


class Proxy:
    """Forwards from ``host`` to ``target`` on 127.0.0.1 until ``aclose``; it keeps its port through every mode."""

    def __init__(self, target: int, host: str = "127.0.0.1") -> None:
        self._target = target
        self._host = host
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def start(self) -> None:
        await self._listen()

    async def set_mode(self, mode: Mode) -> None:
        if mode is Mode.BLACKHOLE:
            self._flowing.clear()
        else:
            self._flowing.set()
        if mode is Mode.REFUSE:
            await self._stop_listening()
            self.reset()
        elif self._server is None:
            await self._listen()

    def reset(self) -> None:
        """RST to both ends of every connection."""
        for writer in list(self._writers):
            sock = writer.get_extra_info("socket")
            if sock is None or sock.fileno() < 0:  # closed already, while the other end still listens
                continue
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            writer.transport.abort()

    async def aclose(self) -> None:
        await self._stop_listening()
        self._flowing.set()
        self.reset()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._host, self.port, limit=_CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._flowing.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self._target, limit=_CHUNK)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(back)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, back))
                group.create_task(self._pump(there, writer))
        finally:
            self._writers -= {writer, back}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_CHUNK):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        except (OSError, RuntimeError):  # uvloop raises the latter for a transport that was aborted meanwhile
            pass
        finally:
            writer.close()
