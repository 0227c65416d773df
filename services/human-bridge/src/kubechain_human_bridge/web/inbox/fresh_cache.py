"""Answers that are good for a few seconds, and not too many of them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class FreshCache(Generic[K, V]):
    """Keeps answers for ``seconds``; over its capacity the least recently asked goes first."""

    def __init__(self, seconds: float, capacity: int) -> None:
        self._seconds = seconds
        self._capacity = capacity
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()

    async def look_up(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        """The value, which ``ask`` gives when there is none. What it raises is not kept."""
        found = self._entries.get(key)
        if found is not None and time.monotonic() < found[0]:
            return found[1]
        value = await ask()
        self._entries[key] = (time.monotonic() + self._seconds, value)
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
        return value
