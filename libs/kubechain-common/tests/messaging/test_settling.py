"""What becomes of a message whose end and whose withdrawal come at awkward moments."""

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
from kubechain_common.messaging.errors import BusUnavailableError
from kubechain_common.messaging.in_flight import Entry, InFlight
from kubechain_common.messaging.settling import Settling

SPEC = ConsumerSpec("STREAM", "durable", "s.>", 16)


@pytest.mark.parametrize("acknowledged", [True, False])
async def test_a_payload_is_deleted_once_its_message_is_acknowledged_and_not_before(acknowledged: bool) -> None:
    deleted: list[str] = []

    async def ready(_: float | None = None) -> None:
        if not acknowledged:
            raise BusUnavailableError("down")

    async def ack_sync(timeout: float) -> None: ...

    async def delete(claim: str) -> None:
        deleted.append(claim)

    bus: Any = SimpleNamespace(connection=SimpleNamespace(ready=ready), claims=SimpleNamespace(delete=delete))
    metadata = SimpleNamespace(sequence=SimpleNamespace(stream=1), timestamp=None)
    raw = SimpleNamespace(
        subject="s.1", data=b"", headers={"Kubechain-Claim": "c"}, metadata=metadata, ack_sync=ack_sync
    )
    await Settling(bus, SPEC, remembered=8).acknowledge(Entry(raw))
    assert deleted == (["c"] if acknowledged else [])


def test_a_message_that_was_withdrawn_is_not_joined_by_one_that_is_published_again() -> None:
    in_flight = InFlight()
    raw: Any = SimpleNamespace(subject="s", data=b"a", headers=None)
    first = in_flight.add_or_join(raw)
    assert first is not None
    first.withdraw()
    assert in_flight.add_or_join(raw) is not None


class FakeBus:
    def __init__(self, client: Any) -> None:
        self.connected = True
        self.callbacks: list[Callable[[], None]] = []
        self.connection = SimpleNamespace(
            nc=client, js=SimpleNamespace(add_consumer=_nothing), ready=_nothing, has_dropped=_dropped
        )
        self.claims = ClaimStore(self.connection.js)

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    on_topology_lost = on_reconnect


async def _nothing(*_: object) -> None: ...
async def _dropped(*_: object) -> bool:
    return True


def build_raw(subject: str = "s.1") -> Any:
    settled: list[str] = []

    async def settle(how: str) -> None:
        settled.append(how)

    metadata = SimpleNamespace(num_delivered=1, timestamp=None, sequence=SimpleNamespace(stream=subject))
    return SimpleNamespace(
        subject=subject, data=b"{}", headers=None, metadata=metadata, is_acked=False, settled=settled,
        ack=lambda: settle("ack"), nak=lambda *_: settle("nak"), term=lambda: settle("term"),
    )  # fmt: skip


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a turn of the loop, not a wait
            await asyncio.sleep(0)


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
