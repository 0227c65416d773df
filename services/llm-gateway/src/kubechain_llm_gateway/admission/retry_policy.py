"""When a failed call is made again. Pure, but for the jitter's source."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

_ATTEMPTS = 10
"""Attempts of a call, unless the LLM says otherwise."""
_FIRST = 1.0
_LONGEST = 60.0


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential back-off from a second to a minute.

    A provider's Retry-After is honoured up to ``longest_asked`` seconds.
    """

    longest_asked: float = 900.0

    def may_retry(self, attempt: int, retries: int | None = None) -> bool:
        """Whether attempt ``attempt`` is followed by another; ``retries`` is the LLM's own limit, if it has one."""
        return attempt < (_ATTEMPTS if retries is None else retries + 1)

    def delay(self, attempt: int, retry_after: float | None, jitter: Callable[[], float] = random.random) -> float:
        """Seconds until the attempt after ``attempt`` (from 1).

        Up to a quarter more, so that calls do not come back in step.
        """
        backoff = min(_FIRST * 2.0 ** min(attempt - 1, 30), _LONGEST)
        asked = min(retry_after or 0.0, self.longest_asked)
        return max(backoff, asked) * (1 + jitter() / 4)
