"""Waiting for what nothing wakes us for: another process, a file, the state of a child."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import inf

_INTERVAL = 0.05


async def until(condition: Callable[[], bool], timeout: float = inf) -> bool:
    """Whether the condition came true within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_INTERVAL)
    return True
