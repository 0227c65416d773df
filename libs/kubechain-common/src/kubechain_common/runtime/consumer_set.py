"""Durable consumers of single objects (an LLM, a channel), on every replica: they come and go with their objects.

Level based: a change of any object only says "look again"; what should run is then compared with what does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable

from kubechain_common.telemetry.logging import get_logger

log = get_logger(__name__)

Consume = Callable[[str, asyncio.Event], Coroutine[None, None, None]]
"""Consumes for one uid until the event is set, then drains and returns."""


class ConsumerSet:
    """Runs ``consume`` for each wanted uid; ``wanted`` tells the uids of now."""

    def __init__(self, wanted: Callable[[], Iterable[str]], consume: Consume) -> None:
        self._wanted = wanted
        self._consume = consume
        self._wake = asyncio.Event()
        self._running: dict[str, asyncio.Event] = {}

    def notify_changed(self) -> None:
        """Has ``run`` compare what runs with what is wanted, which may have changed."""
        self._wake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Returns once ``stopping`` is set and every consumer has drained."""
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._wake_on(stopping))
            while not stopping.is_set():
                self._wake.clear()
                self._adjust(group)
                await self._wake.wait()
            watching.cancel()
            for stop in self._running.values():
                stop.set()
            self._running.clear()

    async def _wake_on(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._wake.set()

    def _adjust(self, group: asyncio.TaskGroup) -> None:
        wanted = set(self._wanted())
        for uid in self._running.keys() - wanted:
            log.info("stopping the consumer of a deleted object", uid=uid)
            self._running.pop(uid).set()
        for uid in wanted - self._running.keys():
            stop = self._running[uid] = asyncio.Event()
            group.create_task(self._consume(uid, stop))
