"""Which replicas of mcp-host live.

Each replica says that it lives every few seconds, by core NATS. One that was not heard of for ``GONE_SECONDS`` is gone,
and so is a former run of a pod that lives again. A replica that was cut off itself has heard nobody, so it counts from
when it is back. The roster may be wrong about a replica that is cut off, which learns of that when it looks at the
sessions that it believed were its own (``claims``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from kubechain_common.messages.peers import Alive, SessionOwner
from kubechain_common.messages.topology import REPLICA_ALIVE
from kubechain_common.messaging import Bus, MessagingError
from kubechain_common.messaging.codec import decode
from kubechain_common.messaging.errors import PoisonMessage
from kubechain_common.runtime.pulse import Pulse
from kubechain_common.telemetry.logging import get_logger

log = get_logger(__name__)

BEAT_SECONDS = 2.5
GONE_SECONDS = 10.0
_RETRY_SECONDS = 1.0


@dataclass
class _Heard:
    instance: str
    at: float


class Roster:
    """What this replica, which is ``me``, knows of the others. ``changes`` beats whenever one comes back or is found to
    be gone.
    """

    def __init__(self, bus: Bus, me: SessionOwner, changes: Pulse, clock: Callable[[], float] = time.monotonic) -> None:
        self.me = me
        self._bus = bus
        self._changes = changes
        self._clock = clock
        self._pods: dict[str, _Heard] = {}
        self._told_gone: set[str] = set()
        self.beaten_at = float("-inf")
        """When this replica last said that it lives."""

    def is_gone(self, owner: SessionOwner) -> bool:
        """Whether this run of a replica has ended, as far as can be known."""
        if owner.instance == self.me.instance:
            return False
        heard = self._pods.setdefault(owner.pod, _Heard(owner.instance, self._clock()))
        if owner.pod == self.me.pod or heard.instance != owner.instance:
            return True
        return self._clock() - heard.at >= GONE_SECONDS

    @property
    def is_heard(self) -> bool:
        """Whether the others can not yet take this replica for gone."""
        return self._clock() - self.beaten_at < GONE_SECONDS / 2

    def hear(self, alive: Alive) -> None:
        known = self._pods.get(alive.pod)
        self._pods[alive.pod] = _Heard(alive.instance, self._clock())
        if known is None or known.instance != alive.instance or alive.pod in self._told_gone:
            self._told_gone.discard(alive.pod)
            self._changes.beat()

    def forgive(self) -> None:
        """Counts the others as heard of now: this replica was cut off, and knows nothing about them."""
        for heard in self._pods.values():
            heard.at = self._clock()
        self._changes.beat()

    async def run(self) -> None:
        """Says that this replica lives, and hears the others; until cancelled."""
        unregister = self._bus.on_reconnect(self.forgive)
        try:
            while True:
                try:
                    async with self._bus.live.hear(REPLICA_ALIVE, self._handle_word):
                        await self._beat()
                except MessagingError as error:
                    log.debug("cannot hear other replicas", error=str(error))
                    await asyncio.sleep(_RETRY_SECONDS)
        finally:
            unregister()

    async def _beat(self) -> None:
        while True:
            if self._bus.connected:
                await self._bus.live.tell(REPLICA_ALIVE, Alive(pod=self.me.pod, instance=self.me.instance))
                self.beaten_at = self._clock()
            gone = {p for p, heard in self._pods.items() if self._clock() - heard.at >= GONE_SECONDS}
            if gone - self._told_gone:
                self._changes.beat()
            self._told_gone |= gone
            await asyncio.sleep(BEAT_SECONDS)

    def _handle_word(self, subject: str, data: bytes) -> None:
        try:
            self.hear(decode(Alive, data))
        except PoisonMessage as problem:
            log.warning("a replica speaks another version", reason=problem.reason)
