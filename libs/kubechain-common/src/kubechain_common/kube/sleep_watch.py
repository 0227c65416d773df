"""SleepWatch: how long the machine slept, which the clock of the event loop does not tell.

That clock, the monotonic one, stands still while a machine is suspended or a virtual one is paused; the wall clock is
put right afterwards. So whatever the wall clock gains on the other was slept through. It may as well have been set
forward by hand: whoever is woken too early by that sees so, and waits for the rest. That it is set back means nothing.
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
        """Seconds of sleep since this was made; never less than it said before."""
        ahead = self._read_ahead()
        gained = ahead - self._ahead
        if abs(gained) >= _NO_SLEEP:
            self._ahead = ahead
            self._slept += max(gained, 0.0)
        return self._slept
