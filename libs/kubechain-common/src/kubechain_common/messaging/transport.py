"""The TCP connection of the NATS client with three faults mended that show when the other end goes (nats-py 2.16).

Its TLS takes the place of the protocol below. When the handshake fails, nobody tells the plain connection that it has
ended: the client waits for that without a bound, at once or at its own end. So a connection whose handshake failed is
dropped here, and no end is waited for longer than a second.

What a new connection takes the place of is dropped as well: one that was given up half made stayed open for as long as
the other end liked.

And uvloop says RuntimeError to whoever writes to a connection that was reset, which ends the client's task that
reconnects. Here it is what it is everywhere else.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import nats.aio.transport

_LONGEST_END = 1.0


class TcpTransport(nats.aio.transport.TcpTransport):  # type: ignore[misc]  # nats is not type-checked here
    """nats-py's transport, which ends when its connection does."""

    _io_writer: Any
    _bare_io_writer: Any

    async def connect(self, uri: Any, buffer_size: int, connect_timeout: int) -> None:
        self.drop()
        await super().connect(uri, buffer_size, connect_timeout)

    async def connect_tls(self, uri: Any, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int) -> None:
        try:
            await super().connect_tls(uri, ssl_context, buffer_size, connect_timeout)
        except BaseException:
            self.drop()
            raise

    def write(self, payload: bytes) -> None:
        with self._reset():
            super().write(payload)

    def writelines(self, payload: list[bytes]) -> None:
        with self._reset():
            super().writelines(payload)

    async def wait_closed(self) -> None:
        try:
            async with asyncio.timeout(_LONGEST_END):
                await super().wait_closed()
        except TimeoutError:
            self.drop()

    def drop(self) -> None:
        """End the connection without a word, and know of none."""
        for writer in {self._io_writer, self._bare_io_writer} - {None}:
            with suppress(AttributeError):  # asyncio's own loop raises it for TLS that has ended, in Python 3.11.2
                writer.transport.abort()
        self._bare_io_reader = self._io_reader = self._bare_io_writer = self._io_writer = None

    def __bool__(self) -> bool:
        return True  # or the client takes one of its own in place of this one

    @contextmanager
    def _reset(self) -> Iterator[None]:
        if self._io_writer is None:
            raise ConnectionResetError("There is no connection to NATS.")
        try:
            yield
        except RuntimeError as error:
            raise ConnectionResetError("The connection to NATS was reset.") from error
