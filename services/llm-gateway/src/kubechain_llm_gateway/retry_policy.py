"""When a failed call is made again. Pure, but for the jitter's source."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential back-off from ``first`` to ``longest`` seconds; the last attempt is number ``attempts``."""

    attempts: int = 10
    first: float = 1.0
    longest: float = 60.0
    longest_asked: float = 900.0
    """A provider's Retry-After is honoured up to this many seconds."""

    def may_retry(self, attempt: int, retries: int | None = None) -> bool:
        """Whether attempt ``attempt`` is followed by another; ``retries`` is the LLM's own limit, if it has one."""
        return attempt < (self.attempts if retries is None else retries + 1)

    def delay(self, attempt: int, retry_after: float | None, jitter: Callable[[], float] = random.random) -> float:
        """Seconds until the attempt after ``attempt`` (from 1).

        Up to a quarter more, so that calls do not come back in step.
        """
        backoff = min(self.first * 2.0 ** min(attempt - 1, 30), self.longest)
        asked = min(retry_after or 0.0, self.longest_asked)
        return max(backoff, asked) * (1 + jitter() / 4)
