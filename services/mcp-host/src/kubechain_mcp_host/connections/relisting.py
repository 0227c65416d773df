"""When the tools of an open connection are listed again (pure; every ``now`` is in seconds of one clock).

A list is wanted after a change notice, after a new subscription, and after an answer that leaves the server in doubt.
HTTP servers are listed when they were quiet for long, too. That is put off while calls run on the connection: a server
that does one thing at a time answers no list meanwhile, and its calls, unlike the list, have deadlines of their own.
"""

from __future__ import annotations

import math


class Relisting:
    """Says when to list. ``spacing`` lies between the end of a list and the next one, so that a server which sends a
    notice whenever it is listed is not listed without a pause; ``refresh`` is how long an HTTP server may be quiet.
    """

    def __init__(self, now: float, *, spacing: float, refresh: float, refreshes: bool) -> None:
        self._spacing = spacing
        self._refresh = refresh
        self._refreshes = refreshes
        self._wanted = False
        self._owed = False
        self._not_before = now
        self._quiet_at = now + refresh if refreshes else math.inf

    def want(self) -> None:
        """Asks for a list. It counts also while a list is under way, which may have missed the change."""
        self._wanted = True

    def seconds_left(self, now: float) -> float:
        """Seconds until ``take`` is to be asked, unless a list is wanted before; may be infinite."""
        return max(0.0, min(self._not_before if self._wanted else math.inf, self._quiet_at) - now)

    def take(self, now: float, *, busy: bool) -> bool:
        """Whether the tools are to be listed now. The caller then says how that ended: ``note_answer`` or
        ``note_failure``.
        """
        if self._wanted and now >= self._not_before:
            self._wanted = False
            return True
        if now < self._quiet_at:
            return False
        self._quiet_at = now + self._refresh
        return self._owed or not busy

    def note_answer(self, now: float) -> None:
        self._owed = False
        self._not_before = now + self._spacing
        self._quiet_at = now + self._refresh if self._refreshes else math.inf

    def note_failure(self, now: float) -> None:
        """Notes that a list failed while the connection goes on. The next one makes up for it, also while calls run."""
        self._owed = True
        self._not_before = now + self._spacing
        self._quiet_at = now + self._refresh
