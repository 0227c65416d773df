"""The corners of the consumer that a real server does not turn on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from kubechain_common.messages import Envelope
from kubechain_common.messages.topology import ConsumerSpec, withdrawn_subject
from kubechain_common.messaging import Consumer, Delivery
from kubechain_common.messaging.claims import ClaimStore
from kubechain_common.messaging.settling import nak_delay

SPEC = ConsumerSpec("STREAM", "durable", "s.>", 16)


class FakeBus:
    """A connected bus whose consumers exist."""

    def __init__(self, client: Any) -> None:
        self.connected = True
        self.callbacks: list[Callable[..., None]] = []
        self.connection = SimpleNamespace(
            nc=client, js=SimpleNamespace(add_consumer=_nothing), ready=_nothing, has_dropped=_has_dropped
        )
        self.claims = ClaimStore(self.connection.js)

    def on_reconnect(self, callback: Callable[..., None]) -> Callable[[], None]:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    on_topology_lost = on_reconnect


async def _nothing(*_: object) -> None: ...


async def _has_dropped(*_: object) -> bool:
    return True


def build_raw(subject: str = "s.1") -> Any:
    settled: list[str] = []

    async def settle(how: str) -> None:
        settled.append(how)

    metadata = SimpleNamespace(num_delivered=1, timestamp=None, sequence=SimpleNamespace(stream=subject))
    return SimpleNamespace(
        subject=subject,
        data=b"{}",
        headers=None,
        metadata=metadata,
        is_acked=False,
        settled=settled,
        ack=lambda: settle("ack"),
        nak=lambda *_: settle("nak"),
        term=lambda: settle("term"),
    )


def build_consumer(bus: FakeBus, handler: Any, concurrency: int = 8) -> Consumer[Envelope]:
    return Consumer(bus, SPEC, Envelope, handler, concurrency=concurrency)  # type: ignore[arg-type]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a turn of the loop, not a wait
            await asyncio.sleep(0)


async def ignore(_: Delivery[Envelope]) -> None: ...


async def test_what_arrives_while_stopping_goes_back(nats_client: Any) -> None:
    late = build_raw()
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(build_consumer(FakeBus(nats_client), ignore).run(stopping))
        await until(lambda: nats_client.published)
        nats_client.subscriptions[-1].late = [late]
        stopping.set()
    assert late.settled == ["nak"]


async def test_an_acknowledged_message_that_comes_again_is_acknowledged_again(nats_client: Any) -> None:
    stopping, handled = asyncio.Event(), 0

    async def count(_: Delivery[Envelope]) -> None:
        nonlocal handled
        handled += 1

    first, again = build_raw(), build_raw()
    async with asyncio.TaskGroup() as group:
        group.create_task(build_consumer(FakeBus(nats_client), count).run(stopping))
        await until(lambda: nats_client.published)
        deliver = nats_client.subscriptions[-1].deliver
        await deliver(first)
        await until(lambda: first.settled)
        await deliver(again)
        stopping.set()
    assert (first.settled, again.settled) == (["ack"], ["ack"])
    assert handled == 1


async def test_callbacks_are_unregistered_at_the_end(nats_client: Any) -> None:
    bus, stopping = FakeBus(nats_client), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(build_consumer(bus, ignore).run(stopping))
        await until(lambda: nats_client.published)
        assert len(bus.callbacks) == 2
        stopping.set()
    assert bus.callbacks == []


async def test_there_is_always_a_request_open_while_there_is_room(nats_client: Any) -> None:
    stopping, release = asyncio.Event(), asyncio.Event()

    async def wait(_: Delivery[Envelope]) -> None:
        await release.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(build_consumer(FakeBus(nats_client), wait, concurrency=4).run(stopping))
        await until(lambda: nats_client.published)
        deliver = nats_client.subscriptions[-1].deliver
        assert nats_client.asked_for == [4]
        await deliver(SimpleNamespace(data=b"", headers={"Status": "408", "Nats-Pending-Messages": "3"}))
        await deliver(build_raw("s.1"))
        assert nats_client.asked_for[-1] == 3, "one of four runs, nothing was outstanding"
        for index in (2, 3, 4):
            await deliver(build_raw(f"s.{index}"))
        assert sum(nats_client.asked_for) == 4 + 3, "no room, no request"
        release.set()
        await until(lambda: len(nats_client.asked_for) > 2)
        stopping.set()


async def test_after_a_reconnect_a_new_pull_is_opened(nats_client: Any) -> None:
    bus, stopping = FakeBus(nats_client), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(build_consumer(bus, ignore).run(stopping))
        await until(lambda: nats_client.published)
        await nats_client.subscriptions[-1].deliver(SimpleNamespace(data=b"", headers={"Status": "100"}))
        bus.callbacks[0]()
        await until(lambda: len(nats_client.subscriptions) == 3 and len(nats_client.published) == 2)
        assert nats_client.published[-1][2] == "_INBOX.2"
        stopping.set()


@pytest.mark.parametrize(("lost", "settled"), [("ANOTHER", ["ack"]), (SPEC.stream, [])])
async def test_only_the_loss_of_its_own_stream_makes_it_forget_what_it_works_on(
    nats_client: Any, lost: str, settled: list[str]
) -> None:
    bus, stopping, release = FakeBus(nats_client), asyncio.Event(), asyncio.Event()

    async def wait(_: Delivery[Envelope]) -> None:
        await release.wait()

    raw = build_raw()
    async with asyncio.TaskGroup() as group:
        group.create_task(build_consumer(bus, wait).run(stopping))
        await until(lambda: nats_client.published)
        await nats_client.subscriptions[-1].deliver(raw)
        bus.callbacks[1](frozenset({lost}))
        release.set()
        stopping.set()
    assert raw.settled == settled


@pytest.mark.parametrize(("attempt", "longest"), [(1, 0.1), (2, 0.2), (5, 1.6), (11, 60.0), (1_000_000, 60.0)])
def test_the_delay_of_a_failed_message_doubles_up_to_a_minute(attempt: int, longest: float) -> None:
    assert 0.75 * longest <= nak_delay(attempt) <= longest


async def test_a_message_that_is_withdrawn_before_its_handler_begins_leaves_its_place(nats_client: Any) -> None:
    stopping, handled = asyncio.Event(), list[str]()

    async def note(delivery: Delivery[Envelope]) -> None:
        handled.append(delivery.subject)

    bus: Any = FakeBus(nats_client)
    consumer = Consumer(bus, SPEC, Envelope, note, concurrency=1, grace=0.1)
    first, second = build_raw("s.1"), build_raw("s.2")
    async with asyncio.TaskGroup() as group:
        group.create_task(consumer.run(stopping))
        await until(lambda: nats_client.published)
        words, messages = nats_client.subscriptions
        await messages.deliver(first)
        await words.deliver(SimpleNamespace(subject=withdrawn_subject("s.1")))
        await until(lambda: nats_client.asked_for == [1, 1])  # there is room for another
        await messages.deliver(second)
        await until(lambda: second.settled)
        stopping.set()
    assert (first.settled, second.settled, handled) == (["term"], ["ack"], ["s.2"])
