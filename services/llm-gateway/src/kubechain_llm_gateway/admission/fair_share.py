"""Shares the calls that one replica can have under way among the namespaces, so that none can take them all.

A namespace may have three times as many calls under way as there are free places: three quarters if it is alone, three
sevenths each if there are two that want all, and so on; some places always stay free for the next one to come. This is
the dynamic threshold of shared memory switches (Choudhury and Hahne, 1998). Places that become free go to the waiting
namespace that has the fewest.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PLACES = 1000
"""Calls that may be under way. They are a few less than the connections, which leaves some for validations and probes.
"""
_GREED = 3


class FairShare:
    """Shares the calls of this replica among namespaces."""

    def __init__(self, places: int = PLACES) -> None:
        self._free = places
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Event]] = {}

    @asynccontextmanager
    async def hold(self, namespace: str) -> AsyncIterator[None]:
        """Holds a place during a call, after waiting for one."""
        if namespace in self._waiting or not self._may_have(namespace):
            await self._wait(namespace)
        else:
            self._take(namespace)
        try:
            yield
        finally:
            self._give_back(namespace)

    async def _wait(self, namespace: str) -> None:
        turn = asyncio.Event()
        self._waiting.setdefault(namespace, deque()).append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self._give_back(namespace)
            else:
                self._remove(namespace, turn)
            raise

    def _may_have(self, namespace: str) -> bool:
        return self._free > 0 and self._held[namespace] < _GREED * self._free

    def _take(self, namespace: str) -> None:
        self._free -= 1
        self._held[namespace] += 1

    def _give_back(self, namespace: str) -> None:
        self._free += 1
        self._held[namespace] -= 1
        if not self._held[namespace]:
            del self._held[namespace]
        while (poorest := self._find_poorest()) is not None:
            turn = self._waiting[poorest][0]
            self._remove(poorest, turn)
            self._take(poorest)
            turn.set()

    def _find_poorest(self) -> str | None:
        """The namespace with the fewest calls of those that wait and may have a place."""
        eligible = [namespace for namespace in self._waiting if self._may_have(namespace)]
        return min(eligible, key=lambda namespace: self._held[namespace], default=None)

    def _remove(self, namespace: str, turn: asyncio.Event) -> None:
        turns = self._waiting[namespace]
        turns.remove(turn)
        if not turns:
            del self._waiting[namespace]
