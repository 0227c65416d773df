"""Wall-clock time, in one place so that tests can replace it.

What may not import ``runtime`` (``kube``, ``messaging``, providers and channels) asks the system itself.
"""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The time, aware, in UTC."""
    return datetime.now(UTC)


def epoch() -> float:
    """The time in seconds since the epoch: what processes can compare with each other."""
    return now().timestamp()
