"""An event loop without sockets and without waiting: time stands still until the model says that it passes.

asyncio's own loop underneath, so tasks, task groups, time-outs and timers behave as they do in production; only the
selector, which has nothing to select, and the clock are ours.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from typing import Any

_MANY = 20_000
_HAIR = 1e-6


class _NothingToSelect:
    def select(self, timeout: float | None = None) -> list[Any]:
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """``run_ready`` runs what can run now; ``advance_to`` moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = _NothingToSelect()
        self._clock_resolution = 0.0  # no timer fires early: code that looks at the clock would set it again and again

    def time(self) -> float:
        return self._now

    def run_ready(self) -> None:
        """Until every task waits for something that only the model or the clock can bring."""
        events._set_running_loop(self)
        try:
            for _ in range(_MANY):
                self._drop_cancelled_timers()
                due = self._scheduled and self._scheduled[0]._when < self._now  # type: ignore[attr-defined]
                if not self._ready and not due:  # type: ignore[attr-defined]
                    return
                self._run_once()  # type: ignore[attr-defined]
            raise AssertionError("the processes are busy for ever without an effect")
        finally:
            events._set_running_loop(None)

    def next_timer(self) -> float | None:
        """When the earliest timer is due."""
        self._drop_cancelled_timers()
        return self._scheduled[0]._when if self._scheduled else None  # type: ignore[attr-defined]

    def advance_to(self, when: float) -> None:
        """A hair's breadth past ``when``, so that what is due then is due."""
        self._now = max(self._now, when + _HAIR)

    def _drop_cancelled_timers(self) -> None:
        scheduled = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
            handle = heapq.heappop(scheduled)
            handle._scheduled = False

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass
