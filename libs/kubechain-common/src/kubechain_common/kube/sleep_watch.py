"""SleepWatch: how long the machine slept, which the clock of the event loop does not tell.

That clock, the monotonic one, stands still while a machine is suspended or a virtual one is paused; the wall clock is
put right afterwards. So whatever the wall clock gains on the other was slept through. The wall clock may as well have
been set forward by hand: a caller that is woken too early by that notices, and waits for the rest. A wall clock that is
set back counts as no sleep.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_NO_SLEEP = 1.0
"""Seconds; less than that is the wall clock being kept in step."""


def _read_ahead() -> float:
    return time.time() - time.monotonic()


class SleepWatch:
    """``read_ahead`` tells by how many seconds the wall clock is ahead of the one that stands still."""

    def __init__(self, read_ahead: Callable[[], float] = _read_ahead) -> None:
        self._read_ahead = read_ahead
        self._ahead = read_ahead()
        self._slept = 0.0

    def slept(self) -> float:
        """Seconds that the machine slept since this watch was made; the figure never goes down."""
        ahead = self._read_ahead()
        gained = ahead - self._ahead
        if abs(gained) >= _NO_SLEEP:
            self._ahead = ahead
            self._slept += max(gained, 0.0)
        return self._slept
