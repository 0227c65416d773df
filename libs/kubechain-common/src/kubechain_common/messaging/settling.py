"""Tells the server what became of a message, and that the others are still being worked on."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

from kubechain_common.messages.topology import ConsumerSpec
from kubechain_common.messaging import errors
from kubechain_common.messaging.bus import Bus
from kubechain_common.messaging.in_flight import Acknowledged, Entry, InFlight
from kubechain_common.telemetry.logging import get_logger

_MAX_NAK_DELAY = 60.0
_ACK_TIMEOUT = 5.0
_CANCELLED_TIMEOUT = 1.0

_log = get_logger(__name__)


class Settling:
    """Settles the messages of one consumer."""

    def __init__(self, bus: Bus, spec: ConsumerSpec, *, remembered: int) -> None:
        self._bus = bus
        self._spec = spec
        self.acknowledged = Acknowledged(remembered)

    async def acknowledge(self, entry: Entry) -> None:
        async def acknowledge(last: Any) -> None:
            self.acknowledged.add(last)
            if entry.claims:  # not to be deleted before it is certain that nobody reads them again
                await last.ack_sync(timeout=_ACK_TIMEOUT)
            else:
                await last.ack()

        if await self._settle(entry, acknowledge):
            await self._delete_claims(entry)

    async def give_back(self, entry: Entry, delay: float) -> None:
        """Has the message delivered again after so many seconds."""
        await self._settle(entry, lambda last: last.nak(delay))

    async def retry_failed(self, entry: Entry, attempt: int, what: str) -> None:
        """Has the message delivered again with back-off, and logs the exception that is being handled."""
        delay = nak_delay(attempt)
        _log.exception(what, consumer=self._spec.durable, subject=entry.subject, attempt=attempt, delay=delay)
        await self.give_back(entry, delay)

    async def end_cancelled(self, entry: Entry) -> None:
        """Has a message whose handler was cancelled delivered again at once; a withdrawn one never."""
        if not entry.withdrawn:
            await self._settle(entry, lambda last: last.nak(), timeout=_CANCELLED_TIMEOUT)
            return
        await self._settle(entry, lambda last: last.term(), timeout=_CANCELLED_TIMEOUT)
        await self._delete_claims(entry)

    async def terminate(self, entry: Entry) -> None:
        """Has the message never delivered again."""
        await self._settle(entry, lambda last: last.term())
        await self._delete_claims(entry)

    async def send_heartbeats(self, in_flight: InFlight) -> None:
        if not len(in_flight) or not self._bus.connected:
            return
        try:
            await self._bus.connection.ready()
            for entry in in_flight:
                if entry.raw is not None and not entry.raw.is_acked:
                    await entry.raw.in_progress()
        except errors.FAILURES as error:
            _log.debug("heartbeats not sent", consumer=self._spec.durable, error=str(error))

    async def _settle(self, entry: Entry, how: Callable[[Any], Awaitable[Any]], timeout: float | None = None) -> bool:
        """False when the server may not have heard and will deliver the message again.

        Waits for the connection: until then the entry stays, and a redelivery joins it instead of doing the work twice.
        """
        try:
            await self._bus.connection.ready(timeout)
            raw = entry.raw
            if raw is None:
                return False
            await how(raw)
        except errors.FAILURES as error:
            _log.warning(
                "message not settled; it will come again",
                consumer=self._spec.durable,
                subject=entry.subject,
                error=str(error),
            )
            return False
        return True

    async def _delete_claims(self, entry: Entry) -> None:
        for claim in entry.claims:
            await self._bus.claims.delete(claim)


def nak_delay(attempt: int) -> float:
    """Seconds before a failed message is delivered again: 0.1 s doubling to a minute, with jitter."""
    return min(_MAX_NAK_DELAY, 0.1 * float(2 ** min(attempt - 1, 16))) * random.uniform(0.75, 1.0)
