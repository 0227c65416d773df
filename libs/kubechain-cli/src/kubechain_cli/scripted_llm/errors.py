"""What the server refuses, whatever the script says. Both protocols render it in their own shape.

Exception
└── RefusedError    the request itself is at fault; never retryable
"""

from __future__ import annotations


class RefusedError(Exception):
    """A request that a real provider would refuse; ``status`` is the HTTP status of the refusal."""

    retryable = False

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
