"""The client when the server goes at the worst of moments, against as much of a server as it takes to be connected."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import uvloop

from kubechain_common.messaging.client import Client
from kubechain_common.messaging.transport import TcpTransport
from kubechain_common.runtime.certificates import build_server_certificate

INFO = b'INFO {"server_id":"s","version":"2.12.0","max_payload":1048576,"headers":true}\r\n'

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def greet_and_reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The client reads the greeting first, and finds the connection gone when it answers."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.write(INFO)
    await asyncio.sleep(0)
    writer.transport.abort()


class Server:
    """``misdeed`` is what the next ``misdeeds`` connections get; others are those of a good server."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.misdeed: Serve = hang_up
        self.misdeeds = 0.0
        self.port = 0
        self.connections = 0
        self._good: list[asyncio.StreamWriter] = []

    def drop_clients(self) -> None:
        while self._good:
            self._good.pop().transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.misdeeds:
            self.misdeeds -= 1
            await self.misdeed(reader, writer)
            return
        try:
            if self.tls is not None:
                await writer.start_tls(self.tls)
            self._good.append(writer)
            writer.write(INFO)
            async for line in reader:
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
        except OSError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(tls)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        server.port = listener.sockets[0].getsockname()[1]
        try:
            yield server
        finally:
            server.drop_clients()


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, Any]:
    """The contexts of both sides."""
    files = build_server_certificate(["localhost"])
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    return {"server": server, "client": ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))}


async def connect(client: Any, server: Server, **options: Any) -> None:
    async def note(_: Exception) -> None:
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # as in Connection: the client drops it
            raise asyncio.CancelledError

    await client.connect(
        f"nats://localhost:{server.port}",
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.01,
        error_cb=note,
        **options,
    )


def over_tls(tls: dict[str, Any]) -> dict[str, Any]:
    return {"tls": tls["client"], "tls_handshake_first": True}


def on_uvloop(test: Callable[[dict[str, Any]], Coroutine[Any, Any, None]]) -> Callable[[dict[str, Any]], None]:
    """On the loop of production: how TLS ends differs between loops, and in asyncio's own between versions."""

    @wraps(test)
    def run(tls: dict[str, Any]) -> None:
        uvloop.run(test(tls))

    return run


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the client has nothing to wait for
            await asyncio.sleep(0.01)


@on_uvloop
async def test_failed_handshakes_are_tried_again(tls: dict[str, Any]) -> None:
    client = Client()
    async with serving(tls["server"]) as server, asyncio.timeout(10):
        server.misdeeds = 2
        await connect(client, server, **over_tls(tls))
        assert server.connections == 3
        await client.close()


@on_uvloop
async def test_the_client_can_be_closed_while_handshakes_fail(tls: dict[str, Any]) -> None:
    client = Client()
    async with serving(tls["server"]) as server, asyncio.timeout(20):
        await connect(client, server, **over_tls(tls))
        server.misdeeds = float("inf")
        server.drop_clients()
        await until(lambda: server.connections > 2)
        await client.publish("waits", b"and can not be sent any more")
        await client.close()
        assert client.is_closed


@on_uvloop
async def test_a_server_that_does_not_end_its_side_is_not_waited_for(tls: dict[str, Any]) -> None:
    client = Client()

    async def listen_for_ever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.start_tls(tls["server"])
        writer.write(INFO)
        await reader.readuntil(b"PING\r\n")
        writer.write(b"PONG\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await over.wait()
        writer.transport.abort()

    over = asyncio.Event()
    async with serving() as server, asyncio.timeout(10):
        server.misdeed, server.misdeeds = listen_for_ever, 1
        await connect(client, server, **over_tls(tls))
        await client.close()
        over.set()


def test_a_connection_that_is_reset_in_its_greeting_is_tried_again() -> None:
    """In production: asyncio's own loop raises no RuntimeError."""

    async def scenario() -> None:
        client = Client()
        async with serving() as server, asyncio.timeout(30):
            server.misdeed, server.misdeeds = greet_and_reset, 10
            await connect(client, server)
            server.misdeeds = 10
            server.drop_clients()
            await until(lambda: server.connections == 22 and client.is_connected)
            await client.flush()
            await client.close()

    uvloop.run(scenario())


def test_who_writes_to_a_connection_that_was_reset_is_told_so() -> None:
    async def scenario() -> None:
        async with serving() as server, asyncio.timeout(10):
            server.misdeed, server.misdeeds = greet_and_reset, 1
            transport: Any = TcpTransport()
            await transport.connect(Address(server.port), 1024, 5)
            with pytest.raises(ConnectionResetError):
                await transport.wait_closed()
            for _ in range(2):
                with pytest.raises(ConnectionResetError):
                    transport.write(b"x")
                with pytest.raises(ConnectionResetError):
                    transport.writelines([b"x"])
                transport.drop()

    uvloop.run(scenario())


class Address:
    hostname = "127.0.0.1"

    def __init__(self, port: int) -> None:
        self.port = port


async def test_a_client_that_can_not_reconnect_any_more_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    client, closed = Client(), asyncio.Event()

    async def close() -> None:
        closed.set()

    async def fail() -> None:
        raise ValueError("nobody expects this")

    async with serving() as server, asyncio.timeout(10):
        await connect(client, server, closed_cb=close)
        monkeypatch.setattr(client, "_process_connect_init", fail)
        await client.publish("waits", b"and can not be sent any more")
        server.drop_clients()
        await closed.wait()
        assert client.is_closed
