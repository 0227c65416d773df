"""Packs the objects of a store that did not change for a while.

Changes are noted in their order, so the oldest are always first, and a timer of the event loop is set only while there
is something to pack and the store is fed. A batch is short enough not to be felt. When a burst has been packed, what it
left behind in the C library's heap is given back to the system.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from kubechain_common.kube.heap import give_back_memory
from kubechain_common.kube.store import Key

_BATCH = 32
_NEXT_BATCH = 0.02
_BURST = 200


class Packable(Protocol):
    """The part of a Store that is asked here."""

    def version(self, key: Key) -> int: ...

    def pack(self, key: Key, version: int) -> None: ...


class Packer:
    """Packs each object that did not change for ``after`` seconds."""

    def __init__(self, store: Packable, after: float) -> None:
        self._store = store
        self._after = after
        self._noted: deque[tuple[float, Key, int]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._packed = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Packs what is due as long as the block runs."""
        self._loop = asyncio.get_running_loop()
        self._set_timer()
        try:
            yield
        finally:
            self._loop = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def note_change(self, key: Key) -> None:
        """Starts the idle time of the object, which changed just now."""
        self._noted.append((time.monotonic() + self._after, key, self._store.version(key)))
        self._set_timer()

    def pack_all(self) -> None:
        """Packs every object that was noted, due or not."""
        while self._noted:
            _, key, version = self._noted.popleft()
            self._store.pack(key, version)

    def _set_timer(self) -> None:
        if self._loop is not None and self._timer is None and self._noted:
            delay = max(_NEXT_BATCH, self._noted[0][0] - time.monotonic())
            self._timer = self._loop.call_later(delay, self._pack_due)

    def _pack_due(self) -> None:
        self._timer = None
        now = time.monotonic()
        for _ in range(_BATCH):
            if not self._noted or self._noted[0][0] > now:
                break
            _, key, version = self._noted.popleft()
            self._store.pack(key, version)
            self._packed += 1
        if not self._noted and self._packed >= _BURST:
            self._packed = 0
            give_back_memory()
        self._set_timer()
