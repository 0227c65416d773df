"""Hears that requests were taken back, and ends their handlers in this process.

The word comes as a core NATS message and may be lost, as anything is that core NATS carries. So after each reconnect
the stream is asked about every message that is being handled: one that it dropped was withdrawn (or settled elsewhere,
and then nobody waits for us either). A stream that was itself lost has dropped nothing: its messages will be published
again, join their handlers, and must find them alive. The word may also overtake the message on its way here, so a
delivery that follows it closely is looked up before it is handled.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Any

from kubechain_common.messages.topology import ConsumerSpec, withdrawn_subject
from kubechain_common.messaging import errors
from kubechain_common.messaging.connection import Connection
from kubechain_common.messaging.in_flight import Entry, InFlight
from kubechain_common.telemetry.logging import get_logger

_LATE_SECONDS = 5.0
_REMEMBERED = 1024
_RETRY_SECONDS = 1.0

_log = get_logger(__name__)


class Withdrawals:
    """Hears of the withdrawals that concern one consumer: ``open`` begins, ``run`` looks after reconnects, ``close``
    ends.
    """

    def __init__(self, connection: Connection, spec: ConsumerSpec, in_flight: InFlight) -> None:
        self._connection = connection
        self._spec = spec
        self._in_flight = in_flight
        self._told: OrderedDict[str, float] = OrderedDict()
        self._look = asyncio.Event()
        self._sub: Any = None

    async def open(self) -> None:
        """Start to listen. Raises the client's errors."""
        self._sub = await self._connection.nc.subscribe(
            withdrawn_subject(self._spec.filter_subject), cb=self._handle_word
        )

    async def close(self) -> None:
        sub, self._sub = self._sub, None
        if sub is None:
            return
        try:
            await sub.unsubscribe()
        except errors.ANY:
            return  # it has gone with its connection

    def look(self) -> None:
        """Has ``run`` look at what is in flight, because words may have been missed."""
        self._look.set()

    async def run(self) -> None:
        """Looks at what is in flight whenever words may have been missed; until cancelled."""
        while True:
            await self._look.wait()
            self._look.clear()
            try:
                for entry in self._in_flight:
                    await self.check(entry)
            except errors.FAILURES as error:
                _log.debug("cannot look for withdrawn messages", consumer=self._spec.durable, error=str(error))
                self._look.set()
                await asyncio.sleep(_RETRY_SECONDS)

    async def check(self, entry: Entry) -> None:
        """End the entry if the stream has dropped its message. Raises MessagingError."""
        raw = entry.raw
        if raw is None or raw.is_acked:
            return
        await self._connection.ready()
        dropped = await self._connection.has_dropped(self._spec.stream, raw.metadata.sequence.stream)
        # None or another delivery by now: the stream was lost, or the message published again.
        if dropped and entry.raw is raw:
            self._end(entry)

    async def check_late(self, entry: Entry) -> None:
        """The same for a delivery that comes right after its withdrawal was told. Raises MessagingError."""
        told = self._told.get(entry.subject)
        if told is not None and time.monotonic() - told < _LATE_SECONDS:
            await self.check(entry)

    async def _handle_word(self, message: Any) -> None:
        subject = message.subject.removeprefix(withdrawn_subject(""))
        self._told[subject] = time.monotonic()
        self._told.move_to_end(subject)
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        for entry in self._in_flight.of_subject(subject):
            self._end(entry)

    def _end(self, entry: Entry) -> None:
        _log.info("message withdrawn", consumer=self._spec.durable, subject=entry.subject)
        entry.withdraw()
