"""When a tree of processes has had its share (pure)."""

PERIOD = 0.1
"""Seconds over which a CPU limit is kept."""
_SHORTEST = 0.01
"""Between two looks: the kernel counts in hundredths."""


class CpuBudget:
    """Grows by ``cores`` seconds a second, up to what two periods bring, and shrinks by what is used.

    ``paused`` says that the tree must not run: it has used more than there was, and half a period's share is not saved
    up yet. So the limit holds over any longer time, however late the use was noticed.
    """

    def __init__(self, cores: float, now: float, used: float) -> None:
        self._cores = cores
        self._share = cores * PERIOD
        self._credit = self._share
        self._rate = 0.0
        self._now = now
        self._used = used
        self.paused = False

    def charge(self, now: float, used: float) -> None:
        """Takes in what the tree has used: ``used`` is its CPU time so far, in seconds like ``now``."""
        spent, passed = used - self._used, now - self._now
        self._now, self._used = now, used
        self._credit = min(2 * self._share, self._credit + passed * self._cores) - spent
        if not self.paused and passed > 0:
            self._rate = spent / passed
        self.paused = self._credit <= 0 or (self.paused and self._credit < self._share / 2)

    def next_look(self) -> float:
        """Seconds after which ``paused`` may change, at the pace at which the tree ran last."""
        if self.paused:
            wait = (self._share / 2 - self._credit) / self._cores
        elif self._rate > 0:
            wait = self._credit / self._rate
        else:
            wait = PERIOD
        return min(PERIOD, max(_SHORTEST, wait))


def describe_excess(used: int, limit: int) -> str:
    """Why a tree was ended that used more memory than its limit; both are in bytes."""
    return (
        f"the server used {_mebibytes(used)} of memory, its limit is {_mebibytes(limit)} (spec.resources.limits.memory)"
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f}Mi"
