"""What a deleted object leaves on the bus: its durable consumers, and requests that nobody will take any more.

Every replica notes deletions, so that none is lost in a change of leader; the leader alone cleans up, some seconds
later, because a replica that still runs the consumer would create it again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from kubechain_common.kube.controller import Controller, Result
from kubechain_common.kube.informer import Key
from kubechain_common.messages.topology import ConsumerSpec
from kubechain_common.telemetry.logging import get_logger

log = get_logger(__name__)

GRACE = 3.0
"""Seconds for all replicas to hear of the deletion and stop their consumers."""


class CleanupBus(Protocol):
    """The part of the Bus that this needs."""

    async def delete_consumer(self, stream: str, durable: str) -> None: ...
    async def purge(self, stream: str, subject: str) -> None: ...


class ConsumerCleanup:
    """Remembers deleted objects until a leader has cleaned up after them.

    ``consumers_of`` tells the consumers of an object by its uid, ``exists`` whether the object is there after all.
    """

    def __init__(
        self,
        bus: CleanupBus,
        consumers_of: Callable[[str], Sequence[ConsumerSpec]],
        exists: Callable[[str], bool],
        *,
        grace: float = GRACE,
    ) -> None:
        self._bus = bus
        self._consumers_of = consumers_of
        self._exists = exists
        self._grace = grace
        self._deleted: set[Key] = set()
        self._controller: Controller | None = None

    def note_deleted(self, namespace: str, uid: str) -> None:
        """Notes that the object with this uid is gone."""
        self._deleted.add((namespace, uid))
        if self._controller is not None:
            self._controller.queue.add_after((namespace, uid), self._grace)

    async def lead(self) -> None:
        """Clean up until cancelled; only the leader does."""
        controller = Controller("consumer-cleanup", self._clean_up, workers=2)
        for key in self._deleted:
            controller.queue.add_after(key, self._grace)
        self._controller = controller
        try:
            await controller.run()
        finally:
            self._controller = None

    async def _clean_up(self, key: Key) -> Result | None:
        namespace, uid = key
        if not self._exists(uid):
            for spec in self._consumers_of(uid):
                await self._bus.delete_consumer(spec.stream, spec.durable)
                await self._bus.purge(spec.stream, spec.filter_subject)
                log.info("removed the consumer of a deleted object", namespace=namespace, consumer=spec.durable)
        self._deleted.discard(key)
        return None
