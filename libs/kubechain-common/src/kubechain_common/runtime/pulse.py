"""Wakes those who wait for a change, so that they look again."""

from __future__ import annotations

import asyncio


class Pulse:
    """Beats at every change. A waiter that takes ``next`` before it looks, and then waits for that, misses none."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def beat(self) -> None:
        """Wakes all that wait."""
        event, self._next = self._next, asyncio.Event()
        event.set()

    @property
    def next(self) -> asyncio.Event:
        """The event that the next beat sets. Take it before looking."""
        return self._next
