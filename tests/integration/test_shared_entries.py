"""What replicas know together, against a real nats-server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from kubechain_common.messaging import Bus
from kubechain_common.messaging.shared_entries import ABSENT, SharedEntry
from kubechain_common.testing.nats_server import NatsServer, run_nats_server

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[None]]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with run_nats_server(tmp_path) as server:
        yield server


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[Bus]:
    async with Bus.connect(server.url, "test") as bus:
        yield bus


async def test_who_is_faster_writes_and_the_other_is_told(bus: Bus) -> None:
    entries = bus.shared
    assert await entries.read("rate.a") == ABSENT
    first = await entries.write("rate.a", b"1", 0)
    assert first is not None
    assert await entries.write("rate.a", b"2", 0) is None
    second = await entries.write("rate.a", b"3", first)
    assert second is not None
    assert await entries.write("rate.a", b"4", first) is None
    assert await entries.read("rate.a") == SharedEntry(b"3", second)
    assert await entries.read("rate.b") == ABSENT


async def test_keys_are_found_by_pattern(bus: Bus) -> None:
    for key in ("health.a", "health.b", "rate.a"):
        await bus.shared.write(key, b"", 0)
    assert sorted(await bus.shared.find_keys("health.*")) == ["health.a", "health.b"]


async def test_a_write_is_heard_of_where_it_is_listened_for(
    server: NatsServer, bus: Bus, eventually: Eventually
) -> None:
    heard: list[str] = []
    async with Bus.connect(server.url, "other") as other:
        end = await other.shared.listen("health.*", heard.append)
        await other.shared.read("health.a")  # a round trip behind the subscription; the client's flush overtakes it
        await bus.shared.tell("rate.a")
        await bus.shared.tell("health.a")
        await eventually(lambda: heard == ["health.a"])
        await end()


async def test_a_bucket_that_is_lost_is_made_anew_and_empty(
    server: NatsServer, bus: Bus, eventually: Eventually
) -> None:
    written = await bus.shared.write("rate.a", b"1", 0)
    assert written is not None
    await server.lose_storage()
    await eventually(lambda: bus.connected)
    assert await bus.shared.write("rate.a", b"2", written) is None, "a revision of the lost bucket is none of this one"
    assert await bus.shared.read("rate.a") == ABSENT
    assert await bus.shared.write("rate.a", b"2", 0) is not None


async def test_a_bucket_that_is_deleted_is_made_anew(bus: Bus) -> None:
    await bus.connection.js.delete_stream("KV_KUBECHAIN_SHARED")
    assert await bus.shared.write("rate.a", b"1", 0) is not None
