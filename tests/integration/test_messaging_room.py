"""Consumers that share a Room, against a real nats-server: what a replica has no room for stays with the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from kubechain_common.messages import ObjectRef, ToolRequest
from kubechain_common.messages.topology import TOOL_REQUESTS, mcp_consumer, tool_request_subject
from kubechain_common.messaging import Bus, Consumer, Delivery, Room
from kubechain_common.testing.nats_server import run_nats_server

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[None]]


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    async with run_nats_server(tmp_path) as server, Bus.connect(server.url, "test") as bus:
        yield bus


class Replica:
    """Takes the requests of servers, each until it is told to let go."""

    def __init__(self, bus: Bus, places: int) -> None:
        self._bus = bus
        self.room = Room(places)
        self.highest = 0
        self.running: dict[str, asyncio.Event] = {}
        self.handled: list[str] = []

    @asynccontextmanager
    async def take(self, *servers: str, concurrency: int = 50) -> AsyncIterator[None]:
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for server in servers:
                consumer = Consumer(
                    self._bus,
                    mcp_consumer(server, concurrency),
                    ToolRequest,
                    self._handle,
                    concurrency=concurrency,
                    room=self.room,
                )
                group.create_task(consumer.run(stopping))
            yield
            self.let_go()
            stopping.set()

    def let_go(self, number: int | None = None) -> None:
        for end in list(self.running.values())[:number]:
            end.set()

    async def _handle(self, delivery: Delivery[ToolRequest]) -> None:
        uid = delivery.message.call.uid
        end = self.running[uid] = asyncio.Event()
        self.highest = max(self.highest, len(self.running))
        await end.wait()
        del self.running[uid]
        self.handled.append(uid)


def count_refused() -> float:
    labels = {"stream": TOOL_REQUESTS.name, "outcome": "no room"}
    return REGISTRY.get_sample_value("kubechain_messages_handled_total", labels) or 0.0


async def publish(bus: Bus, server: str, number: int) -> None:
    for index in range(number):
        uid = f"{server}-{index}"
        request = ToolRequest(
            call=ObjectRef(namespace="default", name="call", uid=uid),
            execution_key=f"default/{uid}",
            server=ObjectRef(namespace="default", name="fetch", uid=server),
            tool="fetch",
            arguments="{}",
            requested_at=datetime(2026, 11, 23, tzinfo=UTC),
        )
        await bus.publish(tool_request_subject(server, "default", uid), request, msg_id=uid)


async def test_no_more_than_its_places_over_all_consumers_and_nothing_is_left_over(
    bus: Bus, eventually: Eventually
) -> None:
    replica = Replica(bus, 4)
    async with replica.take("a", "b", "c"):
        for server in ("a", "b", "c"):
            await publish(bus, server, 10)
        while len(replica.handled) < 30:
            await eventually(lambda: len(replica.running) in (4, 30 - len(replica.handled)))
            replica.let_go(1)
            await asyncio.sleep(0)
    assert replica.highest == 4
    assert len(set(replica.handled)) == 30


async def test_one_consumer_alone_is_sent_no_more_than_it_has_room_for(bus: Bus, eventually: Eventually) -> None:
    replica, before = Replica(bus, 5), count_refused()
    async with replica.take("a", concurrency=1000):
        await publish(bus, "a", 60)
        while len(replica.handled) < 60:
            await eventually(lambda: len(replica.running) == min(5, 60 - len(replica.handled)))
            replica.let_go(3)
            await asyncio.sleep(0)
    assert replica.highest == 5
    assert count_refused() == before


async def test_one_with_much_to_do_does_not_keep_the_others_from_their_turn(bus: Bus, eventually: Eventually) -> None:
    replica = Replica(bus, 2)
    async with replica.take("busy", "quiet"):
        await publish(bus, "busy", 20)
        await eventually(lambda: len(replica.running) == 2)
        await publish(bus, "quiet", 1)
        for _ in range(4):
            await eventually(lambda: len(replica.running) == 2)
            if "quiet-0" in replica.running:
                break
            before = len(replica.handled)
            replica.let_go(1)
            await eventually(lambda before=before: len(replica.handled) > before)
        assert "quiet-0" in replica.running


async def test_what_a_full_replica_is_sent_goes_to_one_that_has_room(bus: Bus, eventually: Eventually) -> None:
    full, free = Replica(bus, 2), Replica(bus, 20)
    async with full.take("a", "b"):
        await publish(bus, "a", 2)
        await eventually(lambda: len(full.running) == 2)
        async with free.take("a", "b"):
            await publish(bus, "b", 10)
            await eventually(lambda: len(free.running) == 10)
            assert len(full.running) == 2


async def test_replicas_share_the_load(bus: Bus, eventually: Eventually) -> None:
    replicas = [Replica(bus, 10) for _ in range(4)]
    async with replicas[0].take("a"), replicas[1].take("a"), replicas[2].take("a"), replicas[3].take("a"):
        await publish(bus, "a", 45)
        await eventually(lambda: [len(replica.running) for replica in replicas] == [10, 10, 10, 10])


async def test_the_servers_own_limit_holds_over_all_replicas(bus: Bus, eventually: Eventually) -> None:
    replicas = [Replica(bus, 10) for _ in range(2)]
    async with replicas[0].take("a", concurrency=5), replicas[1].take("a", concurrency=5):
        await publish(bus, "a", 12)
        for handled in range(12):
            running = min(5, 12 - handled)
            await eventually(lambda running=running: sum(len(replica.running) for replica in replicas) == running)
            next(replica for replica in replicas if replica.running).let_go(1)
            await eventually(lambda handled=handled: sum(len(replica.handled) for replica in replicas) == handled + 1)
