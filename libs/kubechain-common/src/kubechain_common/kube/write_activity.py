"""Whether this process is writing state just now; what can wait gives way to that."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager


class WriteActivity:
    """Counts the writes under way and remembers when the last one ended."""

    def __init__(self) -> None:
        self._under_way = 0
        self._ended = -math.inf

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One write, from its request to its answer."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._ended = asyncio.get_running_loop().time()

    def quiet_for(self) -> float:
        """Seconds since the last write ended; 0 while one is under way."""
        return 0.0 if self._under_way else asyncio.get_running_loop().time() - self._ended
