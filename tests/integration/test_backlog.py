"""The backlog on /metrics rises with the work that waits and falls with the work that is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from kubechain_common.messages import ObjectRef, ToolRequest
from kubechain_common.messages.topology import TOOL_REQUESTS, mcp_consumer, tool_request_subject
from kubechain_common.messaging import Bus, Consumer, Delivery
from kubechain_common.runtime import Health
from kubechain_common.runtime.backlog import BacklogFigures
from kubechain_common.testing.nats_server import NatsServer, run_nats_server

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[None]]

LIMIT = 3


class Shown:
    """What a scrape shows, and a consumer that is slow until it is told to hurry."""

    def __init__(self, health: Health, server: NatsServer, bus: Bus) -> None:
        self._health, self._bus = health, bus
        self.server = server
        self.hurry = asyncio.Event()

    async def figures(self) -> tuple[float | None, float | None]:
        """(messages, workable); None where there is no figure."""
        url = f"http://127.0.0.1:{self._health.port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            lines = (await answer.text()).splitlines()
        names = ("kubechain_backlog_messages", "kubechain_backlog_workable_messages")
        found = dict(line.rsplit(" ", 1) for line in lines if line.startswith(names))
        values = [found.get(f'{name}{{stream="{TOOL_REQUESTS.name}"}}') for name in names]
        return tuple(None if value is None else float(value) for value in values)  # type: ignore[return-value]

    async def publish(self, number: int) -> None:
        for index in range(number):
            request = ToolRequest(
                call=ObjectRef(namespace="default", name="call", uid=f"uid-{index}"),
                execution_key=f"default/{index}",
                server=ObjectRef(namespace="default", name="fetch", uid="server"),
                tool="fetch",
                arguments="{}",
                requested_at=datetime(2026, 11, 23, tzinfo=UTC),
            )
            await self._bus.publish(tool_request_subject("server", "default", f"uid-{index}"), request, msg_id=None)

    @asynccontextmanager
    async def consuming(self) -> AsyncIterator[None]:
        async def handle(_: Delivery[ToolRequest]) -> None:
            await self.hurry.wait()

        consumer = Consumer(self._bus, mcp_consumer("server", LIMIT), ToolRequest, handle, concurrency=LIMIT)
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(consumer.run(stopping))
            yield
            stopping.set()


@pytest.fixture
async def shown(tmp_path: Path) -> AsyncIterator[Shown]:
    health = Health()
    async with (
        run_nats_server(tmp_path) as server,
        Bus.connect(server.url, "test") as bus,
        health.serve("127.0.0.1", 0),
    ):
        health.add_figures(BacklogFigures(bus, [TOOL_REQUESTS]).refresh)
        yield Shown(health, server, bus)


async def test_the_backlog_rises_and_falls(shown: Shown, eventually: Eventually) -> None:
    async def shows(messages: float, workable: float) -> bool:
        return await shown.figures() == (messages, workable)

    assert await shown.figures() == (0, 0)
    async with shown.consuming():
        await shown.publish(2)
        await eventually(lambda: shows(2, 2))
        await shown.publish(10)
        await eventually(lambda: shows(10, LIMIT))
        shown.hurry.set()
        await eventually(lambda: shows(0, 0))


async def test_without_nats_there_is_no_figure_rather_than_an_old_one(shown: Shown, eventually: Eventually) -> None:
    async def is_unknown() -> bool:
        return await shown.figures() == (None, None)

    await shown.publish(1)
    assert await shown.figures() == (1, 0), "nobody consumes it yet"
    await shown.server.kill()
    await eventually(is_unknown)
    await shown.server.start()
