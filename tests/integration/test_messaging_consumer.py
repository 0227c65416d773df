"""Consumers against a real nats-server: what is acknowledged, what comes again, and what a restart or a loss does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.messages import ObjectRef, ToolRequest
from kubechain_common.messages.topology import TOOL_REQUESTS, TOOL_RESULTS, ConsumerSpec, tool_request_subject
from kubechain_common.messaging import Bus, Consumer, Delivery, Poison, PoisonMessage, RetryLater
from kubechain_common.messaging.in_flight import InFlight
from kubechain_common.messaging.settling import Settling
from kubechain_common.testing.nats_server import NatsServer, run_nats_server

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[None]]

SPEC = ConsumerSpec(TOOL_REQUESTS.name, "mcp-server-1", "kubechain.tool.request.server-1.>", 64, ack_wait=30.0)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with run_nats_server(tmp_path) as server:
        yield server


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[Bus]:
    async with Bus.connect(server.url, "test") as bus:
        yield bus


def build_request(uid: str, arguments: str = "{}") -> ToolRequest:
    return ToolRequest(
        call=ObjectRef(namespace="default", name="call", uid=uid),
        execution_key=f"default/{uid}",
        server=ObjectRef(namespace="default", name="fetch", uid="server-1"),
        tool="fetch",
        arguments=arguments,
        requested_at=datetime(2026, 11, 23, tzinfo=UTC),
    )


def subject_of(uid: str) -> str:
    return tool_request_subject("server-1", "default", uid)


async def publish(bus: Bus, uid: str, arguments: str = "{}", *, msg_id: str | None = None) -> None:
    await bus.publish(subject_of(uid), build_request(uid, arguments), msg_id=msg_id)


def gone(bus: Bus, uid: str) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return not await bus.has_message(TOOL_REQUESTS.name, subject_of(uid))

    return check


class Handler:
    """Records the deliveries; ``behaviour`` decides what becomes of each."""

    def __init__(self, behaviour: Callable[[Delivery[ToolRequest]], Awaitable[None]] | None = None) -> None:
        self.seen: list[Delivery[ToolRequest]] = []
        self._behaviour = behaviour

    async def __call__(self, delivery: Delivery[ToolRequest]) -> None:
        self.seen.append(delivery)
        if self._behaviour is not None:
            await self._behaviour(delivery)

    @property
    def uids(self) -> list[str]:
        return [delivery.message.call.uid for delivery in self.seen]


@asynccontextmanager
async def consuming(
    bus: Bus, handler: Handler, spec: ConsumerSpec = SPEC, **options: Any
) -> AsyncIterator[asyncio.Event]:
    """A running consumer; leaving stops and drains it."""
    stopping = asyncio.Event()
    consumer = Consumer(bus, spec, ToolRequest, handler, **{"concurrency": 8, **options})
    async with asyncio.TaskGroup() as group:
        group.create_task(consumer.run(stopping))
        yield stopping
        stopping.set()


async def test_a_handled_message_is_acknowledged_and_leaves_the_stream(bus: Bus, eventually: Eventually) -> None:
    handler = Handler()
    trace = SpanContext(trace_id="ab" * 16, span_id="cd" * 8)
    async with consuming(bus, handler):
        await bus.publish(subject_of("c1"), build_request("c1"), msg_id="c1", trace=trace)
        await eventually(gone(bus, "c1"))
    [delivery] = handler.seen
    assert delivery.message == build_request("c1")
    assert (delivery.attempt, delivery.sequence, delivery.subject) == (1, 1, subject_of("c1"))
    assert delivery.trace == trace
    assert delivery.stored_at.tzinfo is not None


async def test_a_message_that_waits_alone_is_delivered_at_once_whatever_the_concurrency(
    bus: Bus, eventually: Eventually
) -> None:
    arrived: list[float] = []

    async def note(_: Delivery[ToolRequest]) -> None:
        arrived.append(perf_counter())

    delays = []
    async with consuming(bus, Handler(note), concurrency=64):
        await publish(bus, "warm-up")
        await eventually(lambda: len(arrived) == 1)
        for index in range(20):
            sent = perf_counter()
            await publish(bus, f"c{index}")
            await eventually(lambda index=index: len(arrived) == index + 2)
            delays.append(arrived[-1] - sent)
    # Some milliseconds on an idle machine; to wait until 64 are there, or to look now and then, takes far longer.
    assert sorted(delays)[10] < 0.3


async def test_no_more_handlers_run_than_the_concurrency_allows(bus: Bus, eventually: Eventually) -> None:
    running = highest = done = 0
    five_run = asyncio.Barrier(5)

    async def work(_: Delivery[ToolRequest]) -> None:
        nonlocal running, highest, done
        running += 1
        highest = max(highest, running)
        await five_run.wait()
        running -= 1
        done += 1

    for index in range(40):
        await publish(bus, f"c{index}")
    async with consuming(bus, Handler(work), concurrency=5):
        await eventually(lambda: done == 40)
    assert highest == 5


async def test_max_ack_pending_bounds_the_work_of_all_replicas_together(
    server: NatsServer, bus: Bus, eventually: Eventually
) -> None:
    release = asyncio.Event()
    running = 0

    async def work(_: Delivery[ToolRequest]) -> None:
        nonlocal running
        running += 1
        await release.wait()

    spec = ConsumerSpec(SPEC.stream, SPEC.durable, SPEC.filter_subject, max_ack_pending=3)
    first, second = Handler(work), Handler(work)
    async with Bus.connect(server.url, "other") as other, consuming(bus, first, spec), consuming(other, second, spec):
        for index in range(10):
            await publish(bus, f"c{index}")
        await eventually(lambda: running == 3)
        info = await bus.connection.js.consumer_info(SPEC.stream, SPEC.durable)
        assert (info.num_ack_pending, info.num_pending) == (3, 7)
        assert running == 3
        release.set()
        await eventually(lambda: len(first.seen) + len(second.seen) == 10)


async def test_retry_later_delivers_again_after_the_delay(bus: Bus, eventually: Eventually) -> None:
    times: list[float] = []

    async def once_later(delivery: Delivery[ToolRequest]) -> None:
        times.append(perf_counter())
        if delivery.attempt == 1:
            raise RetryLater(0.3)

    handler = Handler(once_later)
    async with consuming(bus, handler):
        await publish(bus, "c1")
        await eventually(gone(bus, "c1"))
    assert [delivery.attempt for delivery in handler.seen] == [1, 2]
    assert times[1] - times[0] >= 0.29


async def test_a_handler_that_fails_gets_its_message_again(bus: Bus, eventually: Eventually) -> None:
    async def fail_twice(delivery: Delivery[ToolRequest]) -> None:
        if delivery.attempt < 3:
            raise RuntimeError("boom")

    handler = Handler(fail_twice)
    async with consuming(bus, handler):
        await publish(bus, "c1")
        await eventually(gone(bus, "c1"))
    assert [delivery.attempt for delivery in handler.seen] == [1, 2, 3]


async def test_a_message_that_does_not_parse_is_reported_and_never_comes_again(
    bus: Bus, eventually: Eventually
) -> None:
    reported: list[Poison] = []

    async def report(poison: Poison) -> None:
        reported.append(poison)

    handler = Handler()
    async with consuming(bus, handler, on_poison=report):
        await bus.connection.js.publish(subject_of("c1"), b'{"v": 2, "arguments": "s3cret"}')
        await eventually(gone(bus, "c1"))
    [poison] = reported
    assert poison.subject == subject_of("c1")
    assert poison.data == b'{"v": 2, "arguments": "s3cret"}'
    assert "ToolRequest" in poison.reason
    assert "s3cret" not in poison.reason
    assert handler.seen == []


async def test_poison_is_reported_again_until_the_report_succeeds(bus: Bus, eventually: Eventually) -> None:
    attempts: list[int] = []

    async def report(poison: Poison) -> None:
        attempts.append(poison.attempt)
        if len(attempts) == 1:
            raise RuntimeError("cannot report now")

    async def refuse(_: Delivery[ToolRequest]) -> None:
        raise PoisonMessage("There is no such server.")

    async with consuming(bus, Handler(refuse), on_poison=report):
        await publish(bus, "c1")
        await eventually(gone(bus, "c1"))
    assert attempts == [1, 2]


async def test_heartbeats_keep_a_message_that_takes_longer_than_ack_wait(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    spec = ConsumerSpec(SPEC.stream, SPEC.durable, SPEC.filter_subject, 8, ack_wait=6.0)
    release = asyncio.Event()
    send, sent = Settling.send_heartbeats, 0

    async def counted(settling: Settling, in_flight: InFlight) -> None:
        nonlocal sent
        await send(settling, in_flight)
        sent += len(in_flight)

    async def work(_: Delivery[ToolRequest]) -> None:
        await release.wait()

    monkeypatch.setattr(Settling, "send_heartbeats", counted)
    handler = Handler(work)
    async with consuming(bus, handler, spec):
        await publish(bus, "c1")
        await eventually(lambda: sent >= 5, within=20)  # one in two seconds: it was delivered 8 s ago
        release.set()
        await eventually(gone(bus, "c1"))
        info = await bus.connection.js.consumer_info(spec.stream, spec.durable)
    assert [delivery.attempt for delivery in handler.seen] == [1]
    assert info.delivered.consumer_seq == 1


async def test_a_redelivery_joins_the_handler_that_still_runs(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    spec = ConsumerSpec(SPEC.stream, SPEC.durable, SPEC.filter_subject, 8, ack_wait=1.0)
    monkeypatch.setattr(Settling, "send_heartbeats", _no_heartbeats)
    release = asyncio.Event()

    async def work(_: Delivery[ToolRequest]) -> None:
        await release.wait()

    async def delivered_twice() -> bool:
        info = await bus.connection.js.consumer_info(spec.stream, spec.durable)
        return bool(info.delivered.consumer_seq >= 2)

    handler = Handler(work)
    async with consuming(bus, handler, spec):
        await publish(bus, "c1")
        await eventually(lambda: len(handler.seen) == 1)  # the consumer is there from here on
        await eventually(delivered_twice)
        release.set()
        await eventually(gone(bus, "c1"))
    assert len(handler.seen) == 1


async def _no_heartbeats(*_: object) -> None: ...


async def test_stopping_waits_for_the_handlers_and_takes_nothing_new(
    server: NatsServer, bus: Bus, eventually: Eventually
) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def work(_: Delivery[ToolRequest]) -> None:
        started.set()
        await release.wait()

    handler, successor = Handler(work), Handler()
    async with consuming(bus, handler) as stopping:
        await publish(bus, "c1")
        await started.wait()
        stopping.set()
        async with Bus.connect(server.url, "other") as other, consuming(other, successor):
            await publish(other, "c2")
            await eventually(gone(other, "c2"))
        release.set()
    assert handler.uids == ["c1"]
    assert successor.uids == ["c2"]
    await eventually(gone(bus, "c1"))


async def test_no_acknowledgement_is_lost_when_a_service_stops(
    server: NatsServer, bus: Bus, eventually: Eventually
) -> None:
    """The last ones are written in the moment in which the connection is closed."""
    count, release = 200, asyncio.Event()

    async def work(_: Delivery[ToolRequest]) -> None:
        await release.wait()

    handler = Handler(work)
    for number in range(count):
        await publish(bus, f"c{number}")
    spec = replace(SPEC, max_ack_pending=count)
    async with (
        Bus.connect(server.url, "stops") as stops,
        consuming(stops, handler, spec, concurrency=count) as stopping,
    ):
        await eventually(lambda: len(handler.seen) == count)
        stopping.set()
        release.set()

    async def all_gone() -> bool:
        return not await bus.find_subjects(SPEC.stream, SPEC.filter_subject)

    await eventually(all_gone)


async def test_what_is_not_done_within_the_grace_goes_back_at_once(bus: Bus, eventually: Eventually) -> None:
    started = asyncio.Event()

    async def hang(_: Delivery[ToolRequest]) -> None:
        started.set()
        await asyncio.Event().wait()

    async with consuming(bus, Handler(hang), grace=0.1):
        await publish(bus, "c1")
        await started.wait()
    successor = Handler()
    begun = perf_counter()
    async with consuming(bus, successor):
        await eventually(gone(bus, "c1"))
    assert perf_counter() - begun < 5, "well before ack_wait"
    assert [delivery.attempt for delivery in successor.seen] == [2]


async def test_a_cancelled_consumer_gives_its_messages_back(bus: Bus, eventually: Eventually) -> None:
    started = asyncio.Event()

    async def hang(_: Delivery[ToolRequest]) -> None:
        started.set()
        await asyncio.Event().wait()

    consumer = Consumer(bus, SPEC, ToolRequest, Handler(hang), concurrency=4)
    async with asyncio.TaskGroup() as group:
        run = group.create_task(consumer.run(asyncio.Event()))
        await publish(bus, "c1")
        await started.wait()
        run.cancel()
    successor = Handler()
    async with consuming(bus, successor):
        await eventually(gone(bus, "c1"))
    assert [delivery.attempt for delivery in successor.seen] == [2]


async def test_a_stopped_consumer_leaves_no_pull_behind(bus: Bus, eventually: Eventually) -> None:
    async with consuming(bus, Handler()):
        await publish(bus, "c1")
        await eventually(gone(bus, "c1"))
    successor = Handler()
    await publish(bus, "c2")
    async with consuming(bus, successor):
        await eventually(gone(bus, "c2"))
    assert [delivery.attempt for delivery in successor.seen] == [1], "nobody swallowed the first delivery"


async def test_a_deleted_consumer_is_made_again(bus: Bus, eventually: Eventually) -> None:
    handler = Handler()
    async with consuming(bus, handler):
        await publish(bus, "c1")
        await eventually(gone(bus, "c1"))
        await bus.connection.js.delete_consumer(SPEC.stream, SPEC.durable)
        await publish(bus, "c2")
        await eventually(gone(bus, "c2"))
    assert handler.uids == ["c1", "c2"]


async def test_an_exclusive_consumer_takes_over_what_a_dead_one_had_in_hand(bus: Bus, eventually: Eventually) -> None:
    """At once: the message would come back by itself after ``ack_wait``, which is 30 s here."""
    async with consuming(bus, Handler()):
        await publish(bus, "c1")
        await eventually(gone(bus, "c1"))
    await publish(bus, "c2")
    taken = await bus.connection.nc.request(
        f"$JS.API.CONSUMER.MSG.NEXT.{SPEC.stream}.{SPEC.durable}", timeout=5, old_style=True
    )
    handler = Handler()
    async with consuming(bus, handler, exclusive=True):
        await eventually(gone(bus, "c2"))
        await publish(bus, "c3")
        await eventually(gone(bus, "c3"))
        await taken.ack()  # the dead one was only slow: it hits nobody
    assert handler.uids == ["c2", "c3"]


async def test_a_deleted_stream_is_made_again_and_the_loss_is_told(bus: Bus, eventually: Eventually) -> None:
    lost: list[str] = []
    bus.on_topology_lost(lambda _: lost.append("lost"))
    handler = Handler()
    async with consuming(bus, handler):
        await publish(bus, "c1")
        await eventually(gone(bus, "c1"))
        await bus.connection.js.delete_stream(SPEC.stream)
        await eventually(lambda: bool(lost))
        await publish(bus, "c2")
        await eventually(gone(bus, "c2"))
    assert handler.uids == ["c1", "c2"]


async def test_the_loss_of_another_stream_disturbs_no_work(bus: Bus, eventually: Eventually) -> None:
    lost: list[frozenset[str]] = []
    bus.on_topology_lost(lost.append)
    release = asyncio.Event()

    async def work(_: Delivery[ToolRequest]) -> None:
        await release.wait()

    handler = Handler(work)
    async with consuming(bus, handler, replace(SPEC, ack_wait=1.0)):
        await publish(bus, "c1")
        await eventually(lambda: handler.uids == ["c1"])
        await bus.connection.js.delete_stream(TOOL_RESULTS.name)
        await eventually(lambda: lost == [{TOOL_RESULTS.name}])
        release.set()
        await eventually(gone(bus, "c1"))
    assert [delivery.attempt for delivery in handler.seen] == [1]


async def test_consuming_goes_on_after_the_server_was_killed_and_restarted(
    server: NatsServer, bus: Bus, eventually: Eventually
) -> None:
    reconnects: list[str] = []
    bus.on_reconnect(lambda: reconnects.append("again"))
    handler = Handler()
    async with consuming(bus, handler):
        await publish(bus, "c1")
        await eventually(gone(bus, "c1"))
        await server.kill()
        await eventually(lambda: not bus.connected)
        await server.start()
        await eventually(lambda: bool(reconnects))
        begun = perf_counter()
        await publish(bus, "c2")
        await eventually(gone(bus, "c2"))
    assert handler.uids == ["c1", "c2"]
    assert perf_counter() - begun < 5


async def test_a_handler_that_outlives_a_restart_acknowledges_its_message(
    server: NatsServer, bus: Bus, eventually: Eventually
) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def work(_: Delivery[ToolRequest]) -> None:
        started.set()
        await release.wait()

    handler = Handler(work)
    async with consuming(bus, handler):
        await publish(bus, "c1")
        await started.wait()
        await server.kill()
        await server.start()
        release.set()
        await eventually(gone(bus, "c1"))
    assert len(handler.seen) == 1


async def test_after_a_loss_of_storage_everything_is_there_again_and_a_stale_ack_hits_nobody(
    server: NatsServer, bus: Bus, eventually: Eventually
) -> None:
    lost: list[str] = []
    bus.on_topology_lost(lambda _: lost.append("lost"))
    release = asyncio.Event()

    second_runs, second_release = asyncio.Event(), asyncio.Event()

    async def work(delivery: Delivery[ToolRequest]) -> None:
        if delivery.message.call.uid == "first":
            await release.wait()
        elif delivery.message.call.uid == "second":
            second_runs.set()
            await second_release.wait()

    handler = Handler(work)
    async with consuming(bus, handler):
        await publish(bus, "first", msg_id="first")
        await eventually(lambda: handler.uids == ["first"])
        await server.lose_storage()
        await eventually(lambda: bool(lost))
        # The new stream counts from 1 again: "second" now has the sequence that "first" had.
        await publish(bus, "second", msg_id="second")
        await second_runs.wait()
        release.set()
        # Once a later message is through, a wrong acknowledgement would have done its harm.
        await publish(bus, "third")
        await eventually(gone(bus, "third"))
        assert await bus.has_message(SPEC.stream, subject_of("second"))
        second_release.set()
        await eventually(gone(bus, "second"))


async def test_a_unit_published_again_after_a_loss_joins_the_handler_that_still_runs(
    server: NatsServer, bus: Bus, eventually: Eventually
) -> None:
    lost: list[str] = []
    bus.on_topology_lost(lambda _: lost.append("lost"))
    release = asyncio.Event()

    async def work(_: Delivery[ToolRequest]) -> None:
        await release.wait()

    handler = Handler(work)
    async with consuming(bus, handler):
        await publish(bus, "other")
        await publish(bus, "c1", msg_id="c1")
        await eventually(lambda: len(handler.seen) == 2)
        await server.lose_storage()
        await eventually(lambda: bool(lost))
        await publish(bus, "c1")
        info = bus.connection.js.consumer_info

        async def delivered_again() -> bool:
            return bool((await info(SPEC.stream, SPEC.durable)).num_ack_pending == 1)

        await eventually(lambda: _quietly(delivered_again))
        release.set()
        await eventually(gone(bus, "c1"))
    assert sorted(handler.uids) == ["c1", "other"]


async def _quietly(check: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await check()
    except Exception:
        return False


async def test_big_messages_travel_by_claim_check_and_leave_nothing_behind(bus: Bus, eventually: Eventually) -> None:
    text = "x" * (3 * 1024 * 1024)
    handler = Handler()
    async with consuming(bus, handler):
        await publish(bus, "c1", text)
        await eventually(gone(bus, "c1"))
        assert handler.seen[0].message.arguments == text
        await eventually(lambda: _no_objects(bus))


async def _no_objects(bus: Bus) -> bool:
    info = await bus.connection.js.stream_info("OBJ_KUBECHAIN_CLAIMS")
    return bool(info.state.bytes < 4096)


async def test_a_message_whose_payload_is_gone_is_poison_with_a_reason(bus: Bus, eventually: Eventually) -> None:
    reported: list[Poison] = []

    async def report(poison: Poison) -> None:
        reported.append(poison)

    await publish(bus, "c1", "x" * (2 * 1024 * 1024))
    await bus.connection.js.purge_stream("OBJ_KUBECHAIN_CLAIMS")
    async with consuming(bus, Handler(), on_poison=report):
        await eventually(gone(bus, "c1"))
    assert "is gone" in reported[0].reason


async def test_changed_limits_of_a_consumer_take_effect(bus: Bus, eventually: Eventually) -> None:
    async with consuming(bus, Handler()):
        await publish(bus, "c1")
        await eventually(gone(bus, "c1"))
    wider = ConsumerSpec(SPEC.stream, SPEC.durable, SPEC.filter_subject, max_ack_pending=7)
    async with consuming(bus, Handler(), wider):
        await publish(bus, "c2")
        await eventually(gone(bus, "c2"))
        info = await bus.connection.js.consumer_info(SPEC.stream, SPEC.durable)
    assert info.config.max_ack_pending == 7
