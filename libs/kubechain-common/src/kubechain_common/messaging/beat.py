"""When a consumer looks after the messages that it has in flight, and whether its server has fallen silent.

Messages in flight need a heartbeat three times within ``ack_wait``. Without any only silence is left to notice, which
is not worth waking an idle process every other second.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from kubechain_common.messaging.in_flight import InFlight
from kubechain_common.messaging.pull import IDLE_HEARTBEAT


class Beat:
    """``wake`` is called when the next look is to come sooner than it was planned. Times are in seconds."""

    def __init__(self, ack_wait: float, in_flight: InFlight, wake: Callable[[], None]) -> None:
        self.interval = ack_wait / 3
        self._in_flight = in_flight
        self._wake = wake
        self._next = 0.0

    @property
    def due_in(self) -> float:
        """Not above zero when it is time to look."""
        return self._next - time.monotonic()

    def plan(self) -> None:
        """Plans the next look, after one or at the start."""
        self._next = time.monotonic() + (self.interval if len(self._in_flight) else IDLE_HEARTBEAT)

    def hasten(self) -> None:
        """Brings the next look forward for a message that has come, if it is the first one for a while."""
        soon = time.monotonic() + self.interval
        if self._next > soon:
            self._next = soon
            self._wake()
