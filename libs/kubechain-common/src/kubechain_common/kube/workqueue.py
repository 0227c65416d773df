"""Workqueue: which keys are to be reconciled next.

A key is queued at most once and handed to at most one worker at a time: added again while it is being worked on, it
comes back when that worker is done. Keys can be added later (``add_after``) or after a growing delay
(``add_rate_limited``). Not thread-safe: it belongs to one event loop.

What a delay waits for is mostly a moment by the wall clock, a deadline. So the time that the machine sleeps counts: the
one timer never waits long before it looks at the clocks, however many keys there are and however late they are due.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from kubechain_common.kube.backoff import backoff_delay
from kubechain_common.kube.sleep_watch import SleepWatch

K = TypeVar("K", bound=Hashable)

BASE_DELAY = 0.005
MAX_DELAY = 60.0
LOOK_EVERY = 30.0
"""Seconds after which a queue with delayed keys looks whether the machine slept."""


class QueueShutDown(Exception):
    """The queue was shut down: the worker may end."""


class Workqueue(Generic[K]):
    """A deduplicating queue with delays and per-key back-off."""

    def __init__(self, sleep_watch: SleepWatch | None = None) -> None:
        self._sleep_watch = sleep_watch or SleepWatch()
        self._slept = 0.0
        self._ready: deque[K] = deque()
        self._waiting: set[K] = set()
        self._processing: set[K] = set()
        self._delayed: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._sequence = itertools.count()
        self._timer: asyncio.Handle | None = None
        self._timer_due = 0.0
        self._failures: dict[K, int] = {}
        self._getters: deque[asyncio.Future[None]] = deque()
        self._shut_down = False

    def __len__(self) -> int:
        """Keys that wait for a worker now; delayed ones are not counted."""
        return len(self._ready)

    # --- putting in ---

    def add(self, key: K) -> None:
        """Queues the key, unless it is queued already."""
        if self._shut_down or key in self._waiting:
            return
        self._waiting.add(key)
        if key not in self._processing:
            self._hand_out(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Queues the key in ``seconds``; of several delays of one key the shortest counts."""
        if seconds <= 0:
            self.add(key)
            return
        due = self._look_at_clocks() + seconds
        if self._shut_down or due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        heapq.heappush(self._delayed, (due, next(self._sequence), key))
        self._schedule()

    def add_rate_limited(self, key: K, *, at_least: float = 0.0, at_most: float = MAX_DELAY) -> None:
        """Queues the key after its back-off (5 ms, doubling up to ``at_most``, jittered), or ``at_least`` seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.add_after(key, max(at_least, backoff_delay(failures, BASE_DELAY, at_most)))

    def forget(self, key: K) -> None:
        """Ends the key's back-off."""
        self._failures.pop(key, None)

    # --- taking out ---

    async def get(self) -> K:
        """The next key, which is the caller's until ``done``. Raises QueueShutDown."""
        while not self._ready:
            if self._shut_down:
                raise QueueShutDown
            getter = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                # Woken and cancelled at once: the key it was woken for must not be left lying.
                if getter.done() and not getter.cancelled() and self._ready:
                    self._wake()
                raise
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._processing.add(key)
        return key

    def done(self, key: K) -> None:
        """Gives the key back; if it was added meanwhile it is handed out again."""
        self._processing.discard(key)
        if key in self._waiting:
            self._hand_out(key)

    def shut_down(self) -> None:
        """Takes nothing more in and drops what waits; workers that ask get QueueShutDown."""
        self._shut_down = True
        self._ready.clear()
        self._waiting.clear()
        self._delayed.clear()
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
        while self._getters:
            self._wake()

    # --- inside ---

    def _hand_out(self, key: K) -> None:
        self._ready.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def _look_at_clocks(self) -> float:
        """The time by which delays count: that of the event loop, and what the machine slept."""
        self._slept = self._sleep_watch.slept()
        return asyncio.get_running_loop().time() + self._slept

    def _schedule(self) -> None:
        """Keeps one timer, for the earliest delayed key or the next look at the clocks."""
        loop = asyncio.get_running_loop()
        due = min(self._delayed[0][0] - self._slept, loop.time() + LOOK_EVERY)
        if self._timer is not None:
            # Not asked of the timer: uvloop's has no when() if it is due within half a millisecond.
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = loop.call_at(due, self._release_due)

    def _release_due(self) -> None:
        self._timer = None
        now = self._look_at_clocks()
        while self._delayed and self._delayed[0][0] <= now:
            due, _, key = heapq.heappop(self._delayed)
            # An entry that a shorter delay has overtaken is stale.
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
        if self._delayed:
            self._schedule()
