"""How long to wait before a process that died is started again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RestartBackoff:
    """Delays in seconds: ``first``, then ``factor`` times as long each time, at most ``cap``.

    A process that stayed ready for ``stable_after`` seconds is not crash-looping: its next death counts as the first.
    """

    first: float = 0.1
    factor: float = 2.0
    cap: float = 10.0
    stable_after: float = 2.0

    def delay(self, deaths_in_a_row: int) -> float:
        """The delay after the n-th death in a row, n from 1."""
        # The exponent is bounded so that a loop of months cannot overflow a float.
        return float(min(self.cap, self.first * self.factor ** min(deaths_in_a_row - 1, 64)))
