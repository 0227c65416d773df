"""When the message bus keeps an object from going on: what its user is told, and when.

A bus that is full, or refuses, is told at once; one that is away only after some seconds, because a restart of NATS is
no news and would cost a write per object. The words stay the same from one attempt to the next, so they are written,
and told as an event, once.
"""

from __future__ import annotations

import time

from kubechain_common.messages.trouble import PREFIX, Trouble
from kubechain_common.messaging.errors import BusFullError, MessagingError

PATIENCE = 3.0
"""Seconds for which a bus that is away is not told of."""


class BusTrouble:
    """Remembers since when each object has been kept."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def note(self, uid: str, error: MessagingError) -> Trouble | None:
        """What is to be told about the object with this uid, if it is time to."""
        since = self._since.setdefault(uid, time.monotonic())
        trouble = describe(error)
        known_for = time.monotonic() - since
        return trouble if trouble.reason != "MessageBusUnavailable" or known_for >= PATIENCE else None

    def clear(self, uid: str) -> None:
        """Forgets the object, which went on or is gone."""
        self._since.pop(uid, None)


def describe(error: MessagingError) -> Trouble:
    """The same words for the same trouble, whatever was being done."""
    if isinstance(error, BusFullError):
        return Trouble("MessageBusFull", f"{PREFIX}{error} This goes on when there is room")
    if error.retryable:
        return Trouble("MessageBusUnavailable", f"{PREFIX}NATS cannot be reached; this goes on when it is back")
    return Trouble("MessageBusRefused", f"{PREFIX}{error}")
