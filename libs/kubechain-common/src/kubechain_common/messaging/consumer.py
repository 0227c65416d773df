"""Runs a handler for each message of a durable consumer.

At most ``concurrency`` handlers run at a time, and only so many messages are ever asked for, so replicas share the
work by capacity; a Room bounds all Consumers of a process together. A message belongs to this process until it is
settled: acknowledged when the handler returns, given back when it raises or is cancelled. One timer per Consumer keeps
all of its messages alive at the server while their handlers run.

Five things make this exact:

* A redelivery of a message whose handler still runs here (a heartbeat got lost, or the unit was published again after
  the broker lost its storage) joins that handler instead of starting a second one, and the newest delivery is what
  gets acknowledged.
* A delivery of a consumer that no longer exists is never acknowledged: in a stream made anew its sequence belongs to
  another message.
* A message that was acknowledged here and comes again all the same is acknowledged again, not handled again.
* A message that was withdrawn ends its handler, here and at once, and is never delivered again.
* Stopping asks for nothing more first, then gives back what arrives late, then waits for the handlers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, Generic, TypeVar

from nats.js import api
from prometheus_client import Counter, Gauge, Histogram

from kubechain_common.messages.envelope import Envelope
from kubechain_common.messages.topology import ConsumerSpec
from kubechain_common.messaging import codec, errors
from kubechain_common.messaging.beat import Beat
from kubechain_common.messaging.bus import Bus
from kubechain_common.messaging.delivery import Delivery, Poison
from kubechain_common.messaging.errors import BusUnavailableError, PoisonMessage, RetryLater
from kubechain_common.messaging.in_flight import Entry, InFlight
from kubechain_common.messaging.pull import CONSUMER_DELETED, Pull
from kubechain_common.messaging.room import Room
from kubechain_common.messaging.settling import Settling
from kubechain_common.messaging.withdrawals import Withdrawals
from kubechain_common.telemetry.logging import get_logger
from kubechain_common.telemetry.metrics import LATENCY_BUCKETS

M = TypeVar("M", bound=Envelope)
Handler = Callable[[Delivery[M]], Awaitable[None]]
PoisonHandler = Callable[[Poison], Awaitable[None]]

__all__ = ["Consumer", "Delivery", "Poison"]

_MIN_BACK_OFF = 0.05
_MAX_BACK_OFF = 5.0
_REMEMBERED_PER_SLOT = 8

_HANDLED = Counter(
    "kubechain_messages_handled_total",
    "Messages handled, by outcome: ok, retry, error, poison, withdrawn, cancelled or no room.",
    ["stream", "outcome"],
)
_SECONDS = Histogram("kubechain_message_seconds", "Time that a handler took.", ["stream"], buckets=LATENCY_BUCKETS)
_RUNNING = Gauge("kubechain_messages_in_flight", "Messages whose handler runs.", ["stream"])

_log = get_logger(__name__)


class Consumer(Generic[M]):
    """Pulls from ``spec`` and hands each message, decoded as ``model``, to ``handler``.

    A message is acknowledged when its handler returns, and nobody waits for the server's word (decision 0001).
    RetryLater has it delivered again after a delay, any other exception with back-off, and that is logged.
    PoisonMessage, or a message that does not parse, is told to ``on_poison`` and never delivered again.

    ``grace`` is how many seconds running handlers get when ``run`` is told to stop. ``exclusive`` says that nobody else
    may consume (a leader's results), so what an earlier process had in hand is delivered at once, not after its
    ``ack_wait``. ``room`` bounds what all Consumers that share it handle at a time; a message for which there is none
    is given back at once.
    """

    def __init__(
        self,
        bus: Bus,
        spec: ConsumerSpec,
        model: type[M],
        handler: Handler[M],
        *,
        concurrency: int,
        on_poison: PoisonHandler | None = None,
        grace: float = 20.0,
        exclusive: bool = False,
        room: Room | None = None,
    ) -> None:
        self._bus = bus
        self._spec = spec
        self._model = model
        self._handler = handler
        self._concurrency = concurrency
        self._on_poison = on_poison
        self._grace = grace
        self._exclusive = exclusive
        self._taken_over = False
        self._in_flight = InFlight()
        self._settling = Settling(bus, spec, remembered=_REMEMBERED_PER_SLOT * concurrency)
        self._withdrawals = Withdrawals(bus.connection, spec, self._in_flight)
        self._pull: Pull | None = None
        self._wake = asyncio.Event()
        self._beat = Beat(spec.ack_wait, self._in_flight, self._wake.set)
        self._seat = room.seat(self._wake.set) if room is not None else None
        self._recall = False
        self._stopping = False
        self._spec_changed = False
        self._handlers: asyncio.TaskGroup
        _HANDLED.labels(spec.stream, "poison")  # from the start: of a series that begins with 1 no increase is seen

    async def run(self, stopping: asyncio.Event) -> None:
        """Consume until ``stopping`` is set, then drain. Cancelling it gives every message back. One run at a time."""
        self._stopping = self._taken_over = False
        unregister = [
            self._bus.on_reconnect(self._handle_reconnect),
            self._bus.on_topology_lost(self._handle_topology_lost),
        ]
        try:
            await self._withdrawals.open()
            async with asyncio.TaskGroup() as self._handlers:
                waker = self._handlers.create_task(self._wake_on(stopping))
                watcher = self._handlers.create_task(self._withdrawals.run())
                try:
                    await self._consume(stopping)
                finally:
                    waker.cancel()
                    self._stopping = True
                    await self._close_pull()
                await self._drain()
                watcher.cancel()
        finally:
            if self._seat is not None:
                self._seat.leave()
            await self._withdrawals.close()
            for end in unregister:
                end()

    def set_concurrency(self, concurrency: int) -> None:
        """Sets how many handlers run at a time, here and over all replicas; those that run already go on."""
        self._concurrency = concurrency
        self._spec = replace(self._spec, max_ack_pending=concurrency)
        self._spec_changed = True
        self._wake.set()

    async def _wake_on(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._wake.set()

    # The pull

    async def _consume(self, stopping: asyncio.Event) -> None:
        back_off = _MIN_BACK_OFF
        self._beat.plan()
        while not stopping.is_set():
            try:
                await self._keep_pulling()
                wait = self._beat.due_in
            except errors.FAILURES as error:
                _log.warning("cannot consume; trying again", consumer=self._spec.durable, error=str(error))
                await self._close_pull()
                wait, back_off = min(back_off, self._beat.due_in), min(_MAX_BACK_OFF, back_off * 2)
            await self._sleep(wait)
            if self._pull is not None and self._pull.proven:
                back_off = _MIN_BACK_OFF
            if self._beat.due_in <= 0:
                self._beat.plan()
                await self._settling.send_heartbeats(self._in_flight)
                if self._pull is not None:
                    self._pull.check_silence()

    async def _sleep(self, seconds: float) -> None:
        """Sleeps until woken, or until ``seconds`` have passed."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _keep_pulling(self) -> None:
        """See to it that there is a pull and that it asks for as many messages as we have room for."""
        if self._pull is not None and self._pull.lost:
            reason, proven = self._pull.lost, self._pull.proven
            _log.info("pull lost", consumer=self._spec.durable, reason=reason)
            if reason == CONSUMER_DELETED:
                self._in_flight.forget_deliveries()
            await self._close_pull()
            if not proven:
                raise BusUnavailableError(reason)  # lost as soon as opened: the next one has to wait
        if self._recall and self._pull is not None:
            await self._close_pull()
            self._pull = await self._start_pull()
        self._recall = False
        if self._pull is None:
            await self._open_pull()
        elif self._spec_changed:
            await self._ensure_consumer()
        await self._ask()

    async def _open_pull(self) -> None:
        await self._bus.connection.ready()
        try:
            await self._take_over()
            await self._ensure_consumer()
        except errors.MISSING:
            await self._bus.ensure_topology()
            await self._ensure_consumer()
        self._pull = await self._start_pull()

    async def _start_pull(self) -> Pull:
        pull = Pull(
            self._bus.connection.nc, self._spec.stream, self._spec.durable, self._handle_message, self._wake.set
        )
        await pull.open()
        return pull

    async def _take_over(self) -> None:
        """Make the consumer anew, once per run: its messages stay in the stream, and nobody is waited for.

        What a predecessor that still lives acknowledges afterwards is what it has dealt with, and stays valid.
        """
        if self._exclusive and not self._taken_over:
            await self._bus.delete_consumer(self._spec.stream, self._spec.durable)
            self._taken_over = True

    async def _ensure_consumer(self) -> None:
        config = api.ConsumerConfig(
            name=self._spec.durable,
            durable_name=self._spec.durable,
            filter_subject=self._spec.filter_subject,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self._spec.ack_wait,
            max_ack_pending=self._spec.max_ack_pending,
            max_deliver=-1,
        )
        self._spec_changed = False
        try:
            await self._bus.connection.js.add_consumer(self._spec.stream, config)
        except errors.ANY:
            self._spec_changed = True
            raise

    async def _ask(self) -> None:
        pull = self._pull
        if pull is None or pull.lost or self._stopping:
            return
        room = self._concurrency - len(self._in_flight) - pull.outstanding
        if self._seat is not None:
            if room <= 0:
                self._seat.leave()
            # What is still outstanding was asked for when there was room for it.
            room = min(room, self._seat.ask()) if room > 0 and not pull.outstanding else 0
        # Topping up one by one would cost a request per message; asking by halves keeps them coming just as well.
        if room > 0 and (pull.outstanding == 0 or room * 2 >= self._concurrency):
            await pull.request(room)

    async def _ask_again(self) -> None:
        try:
            await self._ask()
        except errors.ANY:
            self._wake.set()  # let the loop find out what is wrong

    async def _close_pull(self) -> None:
        pull, self._pull = self._pull, None
        if pull is not None:
            await pull.close()

    def _handle_reconnect(self) -> None:
        self._withdrawals.look()
        # The server forgets pulls with their connection, and says nothing.
        if self._pull is not None:
            self._pull.mark_lost("reconnected")

    def _handle_topology_lost(self, lost: frozenset[str]) -> None:
        if self._spec.stream not in lost:
            return
        self._in_flight.forget_deliveries()
        if self._pull is not None:
            self._pull.mark_lost("stream lost")

    # A message

    async def _handle_message(self, raw: Any) -> None:
        """Called by the client for each message, in order; must not wait for a handler."""
        if self._stopping:
            await raw.nak()
            return
        entry = None
        if raw in self._settling.acknowledged:
            await raw.ack()
        else:
            entry = self._in_flight.add_or_join(raw)
        if entry is not None and self._seat is not None and not self._seat.take():
            self._in_flight.remove(entry)
            await self._refuse(raw)
            return
        if entry is not None:
            entry.task = self._handlers.create_task(self._run_handler(entry, raw))
            self._beat.hasten()
            if self._seat is not None:
                entry.task.add_done_callback(self._leave_place)
        await self._ask_again()

    async def _refuse(self, raw: Any) -> None:
        """There is no room: it goes back, and what else was asked for is not wanted any more."""
        await raw.nak()
        _HANDLED.labels(self._spec.stream, "no room").inc()
        if self._pull is not None and self._pull.outstanding:
            self._recall = True
            self._wake.set()

    def _leave_place(self, _: asyncio.Task[None]) -> None:
        if self._seat is not None:
            self._seat.give_back()

    async def _run_handler(self, entry: Entry, raw: Any) -> None:
        started = time.monotonic()
        _RUNNING.labels(self._spec.stream).inc()
        outcome = "cancelled"
        try:
            outcome = await self._handle_and_settle(entry, raw)
        except asyncio.CancelledError:
            outcome = "withdrawn" if entry.withdrawn else "cancelled"
            await self._settling.end_cancelled(entry)
            self._wake.set()  # there is room for another
            raise
        finally:
            self._in_flight.remove(entry)
            _RUNNING.labels(self._spec.stream).dec()
            _SECONDS.labels(self._spec.stream).observe(time.monotonic() - started)
            _HANDLED.labels(self._spec.stream, outcome).inc()
        await self._ask_again()

    async def _handle_and_settle(self, entry: Entry, raw: Any) -> str:
        """Returns what came of it, for the metrics."""
        attempt = int(raw.metadata.num_delivered)
        try:
            await self._withdrawals.check_late(entry)
            if entry.withdrawn:
                raise asyncio.CancelledError
            entry.running = True
            await self._handler(await self._open_delivery(entry, raw))
        except RetryLater as signal:
            await self._settling.give_back(entry, signal.delay)
            return "retry"
        except PoisonMessage as signal:
            poison = Poison(entry.subject, entry.data, signal.reason, attempt, codec.trace_of(raw.headers))
            return await self._handle_poison(entry, poison)
        except Exception:
            await self._settling.retry_failed(entry, attempt, "handler failed; the message will come again")
            return "error"
        await self._settling.acknowledge(entry)
        return "ok"

    async def _open_delivery(self, entry: Entry, raw: Any) -> Delivery[M]:
        data = await self._bus.claims.open(raw.headers, entry.data)
        metadata = raw.metadata
        return Delivery(
            message=codec.decode(self._model, data),
            attempt=metadata.num_delivered,
            trace=codec.trace_of(raw.headers),
            subject=entry.subject,
            stored_at=metadata.timestamp,
            sequence=metadata.sequence.stream,
            new_since=self._find_new_since(raw),
        )

    def _find_new_since(self, raw: Any) -> datetime | None:
        """See Delivery."""
        since = codec.new_since_of(raw.headers)
        if since is None or raw.metadata.num_delivered > 1:
            return None
        return since if raw.metadata.timestamp > self._bus.connection.connected_at else None

    async def _handle_poison(self, entry: Entry, poison: Poison) -> str:
        _log.error("poison message", consumer=self._spec.durable, subject=poison.subject, reason=poison.reason)
        try:
            if self._on_poison is not None:
                await self._on_poison(poison)
        except Exception:
            await self._settling.retry_failed(entry, poison.attempt, "poison not reported; the message will come again")
            return "error"
        await self._settling.terminate(entry)
        return "poison"

    async def _drain(self) -> None:
        """Wait for the handlers, at most ``grace`` seconds, keeping their messages alive; then cancel the rest."""
        deadline = time.monotonic() + self._grace
        while (tasks := self._in_flight.tasks()) and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait(tasks, timeout=min(left, self._beat.interval))
            await self._settling.send_heartbeats(self._in_flight)
        for task in self._in_flight.tasks():
            task.cancel()
