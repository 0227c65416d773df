"""Waiting for what a test can not be woken by: another process, a file, the answer of a command.

This is the only place in the tests that sleeps, and it sleeps towards a condition with a bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

FIRST_INTERVAL = 0.02
LONGEST_INTERVAL = 0.2


def eventually(
    condition: Callable[[], T], timeout: float, *, what: str | Callable[[], str] = "", interval: float = FIRST_INTERVAL
) -> T:
    """The first truthy value of ``condition``, asked again and again for up to ``timeout`` seconds.

    An AssertionError of the condition counts as "not yet"; the last one ends up in the failure. ``interval`` in seconds
    grows slowly, so that a long wait costs little. Raises AssertionError, which says ``what`` was waited for, when time
    is up.
    """
    deadline = time.monotonic() + timeout
    while True:
        failure: AssertionError | None = None
        try:
            value = condition()
            if value:
                return value
            last: object = value
        except AssertionError as error:
            failure, last = error, error
        if time.monotonic() >= deadline:
            described = what() if callable(what) else what
            raise AssertionError(f"not within {timeout:g} s: {described or condition}; last seen: {last}") from failure
        time.sleep(interval)
        interval = min(interval * 1.2, LONGEST_INTERVAL)
