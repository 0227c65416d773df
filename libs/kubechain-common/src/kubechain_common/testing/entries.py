"""The shared bucket in memory, for several replicas in one test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from fnmatch import fnmatchcase

from kubechain_common.messaging.errors import BusUnavailableError
from kubechain_common.messaging.shared_entries import ABSENT, SharedEntry


class InMemoryEntries:
    """Compare-and-set as the bucket does it. While it is ``away`` everything raises; ``writes`` counts attempts."""

    def __init__(self) -> None:
        self.entries: dict[str, SharedEntry] = {}
        self.away = False
        self.writes = 0
        self.reads = 0
        self._last = 0
        self._listeners: list[tuple[str, Callable[[str], None]]] = []

    async def read(self, key: str) -> SharedEntry:
        self._check()
        self.reads += 1
        return self.entries.get(key, ABSENT)

    async def write(self, key: str, data: bytes, revision: int) -> int | None:
        self._check()
        self.writes += 1
        if self.entries.get(key, ABSENT).revision != revision:
            return None
        self._last += 1
        self.entries[key] = SharedEntry(data, self._last)
        return self._last

    async def find_keys(self, pattern: str) -> list[str]:
        self._check()
        return [key for key in self.entries if fnmatchcase(key, pattern)]

    async def tell(self, key: str) -> None:
        self._check()
        for pattern, callback in self._listeners:
            if fnmatchcase(key, pattern):
                callback(key)

    async def listen(self, pattern: str, callback: Callable[[str], None]) -> Callable[[], Awaitable[None]]:
        self._check()
        listener = (pattern, callback)
        self._listeners.append(listener)

        async def end() -> None:
            self._listeners.remove(listener)

        return end

    def lose_storage(self) -> None:
        """Everything is gone, and revisions begin again."""
        self.entries.clear()
        self._last = 0

    def _check(self) -> None:
        if self.away:
            raise BusUnavailableError("away")
