"""Gives memory back after a burst of work.

What hundreds of pieces of work took while they were under way together stays on the heap of the C library when they
have ended, and would be counted as the process's for ever.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

BURST = 200
"""Pieces of work after which there is something to give back."""
_QUIET = 1.0
"""Seconds without work after which nobody is kept waiting."""


class Burst:
    """Counts work, and gives memory back once many pieces of it have ended and none is under way."""

    def __init__(self) -> None:
        self._under_way = 0
        self._ended = 0
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def work(self) -> Iterator[None]:
        """One piece of work, from its begin to its end."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._ended += 1
            if not self._under_way and self._ended >= BURST and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(_QUIET, self._end)

    def _end(self) -> None:
        self._timer = None
        if not self._under_way:
            self._ended = 0
            give_back_memory()


def give_back_memory() -> None:
    """Gives what is free on the heap back to the system, which takes some milliseconds; does nothing where the C
    library is another one than glibc.

    https://man7.org/linux/man-pages/man3/malloc_trim.3.html
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
