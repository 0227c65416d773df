"""Requests that are taken back, against a real nats-server: the queued one never starts, the running one ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kubechain_common.messages import ObjectRef, ToolRequest
from kubechain_common.messages.topology import ANY, TOOL_REQUESTS, ConsumerSpec, tool_request_subject
from kubechain_common.messaging import Bus, Consumer, Delivery
from kubechain_common.messaging.errors import MISSING
from kubechain_common.testing.nats_server import NatsServer, run_nats_server

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[None]]

SPEC = ConsumerSpec(TOOL_REQUESTS.name, "mcp-server-1", "kubechain.tool.request.server-1.>", 64, ack_wait=1.0)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with run_nats_server(tmp_path) as server:
        yield server


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[Bus]:
    async with Bus.connect(server.url, "host") as bus:
        yield bus


@pytest.fixture
async def controller(server: NatsServer) -> AsyncIterator[Bus]:
    """The other side's connection."""
    async with Bus.connect(server.url, "controller") as bus:
        yield bus


def subject_of(uid: str) -> str:
    return tool_request_subject("server-1", "default", uid)


async def publish(bus: Bus, uid: str) -> None:
    request = ToolRequest(
        call=ObjectRef(namespace="default", name="call", uid=uid),
        execution_key=f"default/{uid}",
        server=ObjectRef(namespace="default", name="fetch", uid="server-1"),
        tool="fetch",
        arguments="{}",
        requested_at=datetime(2026, 11, 24, tzinfo=UTC),
    )
    await bus.publish(subject_of(uid), request, msg_id=None)


class Handler:
    """Handlers that wait until they are released or cancelled."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.ended: list[str] = []
        self.release = asyncio.Event()

    async def __call__(self, delivery: Delivery[ToolRequest]) -> None:
        uid = delivery.message.call.uid
        self.started.append(uid)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.append(uid)
            raise
        self.ended.append(uid)


@asynccontextmanager
async def consuming(bus: Bus, handler: Handler, **options: Any) -> AsyncIterator[Consumer[ToolRequest]]:
    stopping = asyncio.Event()
    consumer = Consumer(bus, SPEC, ToolRequest, handler, **{"concurrency": 8, **options})
    async with asyncio.TaskGroup() as group:
        group.create_task(consumer.run(stopping))
        yield consumer
        handler.release.set()
        stopping.set()


async def pending(bus: Bus) -> tuple[int, int]:
    """(messages in the stream, deliveries that are not acknowledged)"""
    stream = await bus.connection.js.stream_info(SPEC.stream)
    try:
        consumer = await bus.connection.js.consumer_info(SPEC.stream, SPEC.durable)
    except MISSING:
        return stream.state.messages, 0
    return stream.state.messages, consumer.num_ack_pending


def has_consumer(bus: Bus) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return any(c.name == SPEC.durable for c in await bus.connection.js.consumers_info(SPEC.stream))

    return check


def nothing_left(bus: Bus) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return await pending(bus) == (0, 0)

    return check


def delivered(bus: Bus) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return await pending(bus) == (1, 1)

    return check


async def test_withdrawing_ends_the_handler_and_nothing_comes_again(
    bus: Bus, controller: Bus, eventually: Eventually
) -> None:
    handler = Handler()
    async with consuming(bus, handler, concurrency=1):
        await publish(controller, "c1")
        await eventually(lambda: handler.started == ["c1"])
        await controller.withdraw(SPEC.stream, subject_of("c1"))
        await eventually(lambda: handler.cancelled == ["c1"])
        await eventually(nothing_left(bus))
        await publish(controller, "c2")  # its place is free for another one
        await eventually(lambda: handler.started == ["c1", "c2"])
    assert (handler.cancelled, handler.ended) == (["c1"], ["c2"])


async def test_a_queued_request_that_is_withdrawn_never_starts(
    bus: Bus, controller: Bus, eventually: Eventually
) -> None:
    handler = Handler()
    async with consuming(bus, handler, concurrency=1):
        for uid in ("c1", "c2", "c3"):
            await publish(controller, uid)
        await eventually(lambda: handler.started == ["c1"])
        await controller.withdraw(SPEC.stream, subject_of("c2"))
        handler.release.set()
        await eventually(nothing_left(bus))
    assert handler.started == ["c1", "c3"]
    assert handler.cancelled == []


async def test_a_request_is_found_to_whomever_it_went(bus: Bus, controller: Bus, eventually: Eventually) -> None:
    handler = Handler()
    async with consuming(bus, handler):
        await publish(controller, "c1")
        await publish(controller, "c2")
        await eventually(lambda: len(handler.started) == 2)
        await controller.withdraw(SPEC.stream, tool_request_subject(ANY, "default", "c1"))
        await eventually(lambda: handler.cancelled == ["c1"])
    assert handler.ended == ["c2"]


async def test_what_waits_to_come_again_does_not_go_with_a_withdrawn_request(
    bus: Bus, controller: Bus, eventually: Eventually
) -> None:
    """nats-server would lose it with a purge of the subject; see decision 0022."""
    async with consuming(bus, Handler(), concurrency=1):
        await eventually(has_consumer(bus))
    for uid in ("c1", "c2", "c3", "c4"):
        await publish(controller, uid)
    dead = await bus.connection.js.pull_subscribe_bind(SPEC.durable, SPEC.stream)
    for raw in await dead.fetch(3):
        await bus.connection.nc.request(raw.reply, b"-NAK", timeout=5)  # answered once it is done
    await controller.withdraw(SPEC.stream, subject_of("c3"))
    handler = Handler()
    handler.release.set()
    async with consuming(bus, handler):
        await eventually(nothing_left(bus))
    assert sorted(handler.ended) == ["c1", "c2", "c4"]


@pytest.mark.parametrize("others", [(), ("c0",)], ids=["alone", "behind another"])
async def test_a_request_that_is_acknowledged_while_it_is_withdrawn_is_no_error(
    bus: Bus, controller: Bus, monkeypatch: pytest.MonkeyPatch, others: tuple[str, ...]
) -> None:
    """The server says so in another way where an older message lies in the stream."""
    for uid in (*others, "c1"):
        await publish(controller, uid)
    delete = controller.connection.delete

    async def too_late(stream: str, sequence: int) -> None:
        await delete(stream, sequence)
        await delete(stream, sequence)

    monkeypatch.setattr(controller.connection, "delete", too_late)
    await controller.withdraw(SPEC.stream, subject_of("c1"))
    assert await pending(bus) == (len(others), 0)


async def test_what_is_published_again_while_it_is_withdrawn_stays(
    bus: Bus, controller: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(controller, "c1")
    delete = controller.connection.delete

    async def publish_behind(stream: str, sequence: int) -> None:
        await delete(stream, sequence)
        await publish(bus, "c1")

    monkeypatch.setattr(controller.connection, "delete", publish_behind)
    await controller.withdraw(SPEC.stream, subject_of("c1"))
    assert await pending(bus) == (1, 0)


async def test_withdrawing_what_is_not_there_is_no_error(controller: Bus) -> None:
    await controller.withdraw(SPEC.stream, subject_of("nobody"))
    await controller.withdraw(SPEC.stream, tool_request_subject(ANY, "default", "nobody"))


async def test_a_unit_that_is_published_again_after_its_withdrawal_is_handled_anew(
    bus: Bus, controller: Bus, eventually: Eventually
) -> None:
    handler = Handler()
    async with consuming(bus, handler):
        await publish(controller, "c1")
        await eventually(lambda: handler.started == ["c1"])
        await controller.withdraw(SPEC.stream, subject_of("c1"))
        await publish(controller, "c1")
        await eventually(lambda: handler.started == ["c1", "c1"])
    assert (handler.cancelled, handler.ended) == (["c1"], ["c1"])


async def test_a_word_that_was_missed_is_made_good_after_the_reconnect(
    bus: Bus, controller: Bus, server: NatsServer, eventually: Eventually
) -> None:
    """The message is dropped without a word, as if the word had been lost with the connection."""
    handler = Handler()
    async with consuming(bus, handler):
        await publish(controller, "c1")
        await publish(controller, "c2")
        await eventually(lambda: len(handler.started) == 2)
        await controller.drop(SPEC.stream, subject_of("c1"))
        assert handler.cancelled == []
        await server.kill()
        await server.start()
        await eventually(lambda: handler.cancelled == ["c1"])
    assert handler.ended == ["c2"]


async def test_a_lost_stream_has_withdrawn_nothing(
    bus: Bus, controller: Bus, server: NatsServer, eventually: Eventually
) -> None:
    reconnected: list[bool] = []
    handler = Handler()
    async with consuming(bus, handler):
        bus.on_reconnect(lambda: reconnected.append(True))
        await publish(controller, "c1")
        await eventually(lambda: handler.started == ["c1"])
        await server.lose_storage()
        await eventually(lambda: bool(reconnected))
        await controller.ensure_topology()
        await publish(controller, "c1")  # as its controller does when it hears of the loss
        await eventually(delivered(bus))
        handler.release.set()
        await eventually(nothing_left(bus))
    assert (handler.started, handler.cancelled, handler.ended) == (["c1"], [], ["c1"])


async def test_a_stream_made_anew_while_connected_has_withdrawn_nothing(
    bus: Bus, controller: Bus, eventually: Eventually
) -> None:
    lost: list[bool] = []
    handler = Handler()
    async with consuming(bus, handler) as consumer:
        bus.on_topology_lost(lambda _: lost.append(True))
        await publish(controller, "c1")
        await eventually(lambda: handler.started == ["c1"])
        await controller.connection.js.delete_stream(SPEC.stream)
        await controller.ensure_topology()
        consumer._withdrawals.look()
        await eventually(lambda: bool(lost))
        await publish(controller, "c1")
        await eventually(delivered(bus))
        handler.release.set()
        await eventually(nothing_left(bus))
    assert (handler.cancelled, handler.ended) == ([], ["c1"])


async def test_the_limit_changes_under_running_handlers(bus: Bus, eventually: Eventually) -> None:
    handler = Handler()
    async with consuming(bus, handler, concurrency=1) as consumer:
        for uid in ("c1", "c2", "c3"):
            await publish(bus, uid)
        await eventually(lambda: handler.started == ["c1"])
        consumer.set_concurrency(2)
        await eventually(lambda: handler.started == ["c1", "c2"])
        consumer.set_concurrency(1)

        async def narrowed() -> bool:
            info = await bus.connection.js.consumer_info(SPEC.stream, SPEC.durable)
            return bool(info.config.max_ack_pending == 1)

        await eventually(narrowed)
        assert handler.cancelled == []
    assert handler.ended[:2] == ["c1", "c2"]
    assert handler.cancelled == []
