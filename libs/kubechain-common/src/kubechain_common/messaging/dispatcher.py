"""Publishes each unit of work once, however often its object is reconciled.

A unit has one request subject and one result subject of its own. While this process remembers that it published,
nothing is asked. After a restart it remembers nothing, so it looks: a worker publishes the result before it
acknowledges the request, hence the request is still there, or its result is, or the result was consumed, and then the
object has moved on and is not reconciled for this unit any more. Only when both are missing was the request never
published (or the broker's storage was lost), and then it is published again. No time-out is involved.

A look can be out of date when the publish arrives: a worker that outlived the storage may have answered meanwhile. So
only a first publish says that it is one (``new_since``), and workers look once more before they begin anything else.
They do so too when it took a while to arrive: its sender may have been frozen, and no leader any more.

A first publish that the server takes for a duplicate is one of a unit that went back in time with its object: etcd was
restored, and the server still knows the id of the request that was answered in the lost future. So it is looked for,
too, instead of being waited for in vain.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.messages import Envelope
from kubechain_common.messages.topology import StreamSpec
from kubechain_common.messaging.bus import Bus, PublishOutcome


class Dispatcher:
    """Remembers what this process knows to be on its way. Not shared between replicas: only a leader dispatches.

    ``leads`` tells whether nobody else can be leading at this moment.
    """

    def __init__(self, bus: Bus, requests: StreamSpec, results: StreamSpec, leads: Callable[[], bool]) -> None:
        self._bus = bus
        self._requests = requests
        self._results = results
        self._leads = leads
        self._on_its_way: dict[str, str] = {}

    def subject_of(self, unit: str) -> str | None:
        """The subject on which this process knows the unit to be on its way, if it does."""
        return self._on_its_way.get(unit)

    def forget(self, unit: str) -> None:
        """Forgets the unit, which is settled."""
        self._on_its_way.pop(unit, None)

    async def withdraw(self, unit: str, *subjects: str) -> None:
        """Take the unit's request back, also from whoever is at it. Raises MessagingError.

        ``subjects`` (wildcards allowed) are where it may be besides where this process knows it to be. Idempotent, and
        told again each time: an earlier attempt may have ended halfway.
        """
        known = self._on_its_way.get(unit)
        for subject in dict.fromkeys((known, *subjects) if known else subjects):
            await self._bus.withdraw(self._requests.name, subject)
        self.forget(unit)

    def forget_all(self) -> None:
        """Forgets all units, so that each is looked for before it is published: the broker may have lost its storage,
        or leadership was lost in between.
        """
        self._on_its_way.clear()

    async def publish(
        self,
        unit: str,
        message: Envelope,
        *,
        subject: str,
        result_subject: str,
        trace: SpanContext | None,
        new_since: datetime | None,
        anywhere: str | None = None,
    ) -> None:
        """Publish the unit's request unless it, or its result, is there already.

        ``new_since`` is when the unit came into being, if that was in this very reconcile, so that nobody can have
        published it before. A unit that moves to another subject (another LLM, an MCPServer made anew) is not new: it
        may have its result already. ``anywhere`` is a pattern of all its subjects: a request that an earlier leader
        sent to another of them is taken back.
        """
        known = self._on_its_way.get(unit)
        if known == subject:
            return
        since = new_since if known is None and self._leads() else None
        stored = since is not None and await self._publish_new(subject, message, trace, since)
        if not stored and not await self._is_there(subject, result_subject, anywhere):
            await self._bus.publish(subject, message, msg_id=None, trace=trace, new_since=None)
        self._on_its_way[unit] = subject

    async def _publish_new(self, subject: str, message: Envelope, trace: SpanContext | None, since: datetime) -> bool:
        """False when the server knows such a request, or knew one: it may have gone, and has to be looked for."""
        # The id names the subject too: the server would take the unit's request elsewhere for its duplicate.
        outcome = await self._bus.publish(subject, message, msg_id=subject, trace=trace, new_since=since)
        return outcome is PublishOutcome.STORED

    async def _is_there(self, subject: str, result_subject: str, anywhere: str | None) -> bool:
        # The order matters: a result appears before its request goes.
        held = await self._bus.find_subjects(self._requests.name, anywhere or subject)
        for other in held:
            if other != subject:
                await self._bus.withdraw(self._requests.name, other)
        return subject in held or await self._bus.has_message(self._results.name, result_subject)
