"""Publishes each unit of work once, however often its object is reconciled.

A unit has one request subject and one result subject of its own. While this process remembers that it published,
nothing is asked. After a restart it remembers nothing, so it looks: a worker publishes the result before it
acknowledges the request, hence the request is still there, or its result is, or the result was consumed, and then the
object has moved on and is not reconciled for this unit any more. Only when both are missing was the request never
published (or the broker's storage was lost), and then it is published again. No time-out is involved.
"""

from __future__ import annotations

from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.messages import Envelope
from kubechain_common.messages.topology import StreamSpec
from kubechain_common.messaging.bus import Bus


class Dispatcher:
    """Remembers what this process knows to be on its way. Not shared between replicas: only a leader dispatches."""

    def __init__(self, bus: Bus, requests: StreamSpec, results: StreamSpec) -> None:
        self._bus = bus
        self._requests = requests
        self._results = results
        self._on_its_way: dict[str, str] = {}

    def subject_of(self, unit: str) -> str | None:
        """The subject on which this process knows the unit to be on its way, if it does."""
        return self._on_its_way.get(unit)

    def forget(self, unit: str) -> None:
        """The unit is settled."""
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
        """The broker may have lost its storage, or leadership was lost in between: look again before publishing."""
        self._on_its_way.clear()

    async def publish(
        self,
        unit: str,
        message: Envelope,
        *,
        subject: str,
        result_subject: str,
        trace: SpanContext | None,
        fresh: bool,
    ) -> None:
        """Publish the unit's request unless it, or its result, is there already.

        ``fresh`` says that the unit came into being in this very reconcile, so that nobody can have published it
        before. A unit that moves to another subject (another LLM, an MCPServer made anew) is not fresh: it may have its
        result already.
        """
        known = self._on_its_way.get(unit)
        if known == subject:
            return
        fresh = fresh and known is None
        if fresh or not await self._is_there(subject, result_subject):
            # The id names the subject too: the server would take the unit's request elsewhere for its duplicate.
            await self._bus.publish(subject, message, msg_id=subject if fresh else None, trace=trace)
        self._on_its_way[unit] = subject

    async def _is_there(self, subject: str, result_subject: str) -> bool:
        # The order matters: a result appears before its request goes.
        return await self._bus.has_message(self._requests.name, subject) or await self._bus.has_message(
            self._results.name, result_subject
        )
