"""The bus over TLS against a real nats-server that is not there all the time, with something else in its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kubechain_common.messaging import Bus
from kubechain_common.messaging.access import BusAccess
from kubechain_common.runtime.certificates import build_server_certificate
from kubechain_common.testing.nats_server import NatsServer

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[None]]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """Not started yet."""
    write_certificates(tmp_path)
    tls = f'tls {{ cert_file: "{tmp_path}/tls.crt", key_file: "{tmp_path}/tls.key", handshake_first: true }}'
    server = NatsServer(tmp_path / "nats", tls)
    try:
        yield server
    finally:
        await server.kill()


@pytest.fixture
def access(tmp_path: Path, server: NatsServer) -> BusAccess:
    return BusAccess(ca_file=tmp_path / "ca.crt")


def url_of(server: NatsServer) -> str:
    return f"tls://localhost:{server.port}"


@asynccontextmanager
async def hanging_up(port: int) -> AsyncIterator[list[int]]:
    """A server in the place of NATS that ends each connection at once, as a proxy without a backend does; counts."""
    connections: list[int] = []

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(port)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", port):
        yield connections


def write_certificates(folder: Path) -> None:
    """Of an authority of their own."""
    for name, text in build_server_certificate(["localhost"]).items():
        (folder / name).write_text(text)


async def test_a_new_authority_is_read_when_the_connection_comes_back(
    server: NatsServer, access: BusAccess, tmp_path: Path, eventually: Eventually
) -> None:
    await server.start()
    async with asyncio.timeout(40), Bus.connect(url_of(server), "test", access) as bus:
        await server.kill()
        await eventually(lambda: not bus.connected)
        (tmp_path / "ca.crt").unlink()
        with capture_logs() as logs:
            async with hanging_up(server.port):
                await eventually(lambda: any("cannot be read any more" in entry["event"] for entry in logs))
        write_certificates(tmp_path)
        await server.start()
        await bus.connection.ready(20)
        assert await bus.started_calls.claim("default/c1")


async def test_failed_handshakes_are_waited_out(server: NatsServer, access: BusAccess, eventually: Eventually) -> None:
    connected = asyncio.Event()

    async def connect() -> None:
        async with Bus.connect(url_of(server), "test", access) as bus:
            assert await bus.started_calls.claim("default/c1")
            connected.set()

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        async with hanging_up(server.port) as connections:
            group.create_task(connect())
            await eventually(lambda: len(connections) >= 2)
        assert not connected.is_set()
        await server.start()
        await connected.wait()


async def test_a_process_ends_while_handshakes_fail(
    server: NatsServer, access: BusAccess, eventually: Eventually
) -> None:
    await server.start()
    async with asyncio.timeout(30), AsyncExitStack() as stack, Bus.connect(url_of(server), "test", access) as bus:
        await server.kill()
        await eventually(lambda: not bus.connected)
        connections = await stack.enter_async_context(hanging_up(server.port))
        await eventually(lambda: len(connections) >= 2)
