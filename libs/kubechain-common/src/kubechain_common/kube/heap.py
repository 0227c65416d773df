"""Gives memory back after a burst of work.

What many pieces of work took while they were under way together stays on the heap of the C library when they have
ended, and would be the process's for ever. A few that go on, perhaps for days, do not keep a burst from being over.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

CROWD = 50
"""Pieces of work that take enough together for it to be worth giving back."""
_OVER = 4
"""A burst is over when at most a fourth of its pieces are under way."""
_LATER = 1.0
"""Seconds after which it is looked whether it still is."""


class Burst:
    """Counts the work under way, and gives memory back when the better part of a crowd has ended."""

    def __init__(self) -> None:
        self._under_way = 0
        self._most = 0
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def work(self) -> Iterator[None]:
        """One piece of work, from its begin to its end."""
        self._under_way += 1
        self._most = max(self._most, self._under_way)
        try:
            yield
        finally:
            self._under_way -= 1
            if self._timer is None and self._is_over():
                self._timer = asyncio.get_running_loop().call_later(_LATER, self._end)

    def _is_over(self) -> bool:
        return self._most >= CROWD and self._under_way * _OVER <= self._most

    def _end(self) -> None:
        self._timer = None
        if self._is_over():
            self._most = self._under_way
            give_back_memory()


def give_back_memory() -> None:
    """Gives what is free on the heap back to the system, which takes some milliseconds; does nothing where the C
    library is another one than glibc.

    https://man7.org/linux/man-pages/man3/malloc_trim.3.html
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
