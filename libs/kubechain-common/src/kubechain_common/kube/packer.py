"""Packs the objects of a store that did not change for a while.

Changes are noted in their order, so the oldest are always first, and a timer of the event loop is set only while there
is something to pack. A batch is short enough not to be felt.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from kubechain_common.kube.store import Key

_BATCH = 32
_NEXT_BATCH = 0.02


class Packable(Protocol):
    """The part of a Store that is asked here."""

    def version(self, key: Key) -> int: ...

    def pack(self, key: Key, version: int) -> None: ...


class Packer:
    """``after`` is in seconds."""

    def __init__(self, store: Packable, after: float) -> None:
        self._store = store
        self._after = after
        self._noted: deque[tuple[float, Key, int]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def note_change(self, key: Key) -> None:
        """The object changed just now."""
        loop = asyncio.get_running_loop()
        self._noted.append((loop.time() + self._after, key, self._store.version(key)))
        if self._timer is None:
            self._timer = loop.call_later(self._after, self._pack_due)

    def pack_all(self) -> None:
        """Packs whatever was noted, due or not."""
        while self._noted:
            _, key, version = self._noted.popleft()
            self._store.pack(key, version)

    def _pack_due(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for _ in range(_BATCH):
            if not self._noted or self._noted[0][0] > loop.time():
                break
            _, key, version = self._noted.popleft()
            self._store.pack(key, version)
        if self._noted:
            self._timer = loop.call_later(max(_NEXT_BATCH, self._noted[0][0] - loop.time()), self._pack_due)
