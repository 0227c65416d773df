"""Exponential back-off with jitter, so that many clients of one server do not come back in step."""

from __future__ import annotations

import random


def backoff_delay(attempt: int, initial: float, maximum: float) -> float:
    """Seconds to wait after failure number ``attempt`` (from 0): doubling up to ``maximum``, its last half random."""
    # 2**40 * 1 ms is longer than any maximum; the bound keeps the power from overflowing.
    delay = min(maximum, initial * 2.0 ** min(attempt, 40))
    return delay * random.uniform(0.5, 1.0)


class Backoff:
    """The back-off of one loop."""

    def __init__(self, initial: float, maximum: float) -> None:
        self._initial = initial
        self._maximum = maximum
        self._attempt = 0

    def next(self) -> float:
        """Seconds to wait now; longer each time until ``reset``."""
        delay = backoff_delay(self._attempt, self._initial, self._maximum)
        self._attempt += 1
        return delay

    def reset(self) -> None:
        self._attempt = 0
