"""Something has changed: whoever waits looks again."""

from __future__ import annotations

import asyncio


class Pulse:
    """No beat is missed by one who looked after the last one that he knows of, and then waits."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def beat(self) -> None:
        """Wake all who wait."""
        event, self._next = self._next, asyncio.Event()
        event.set()

    @property
    def next(self) -> asyncio.Event:
        """Set by the next beat. To be taken before looking."""
        return self._next
