"""Keeps a server's tree within its limits: stops and continues it for CPU, ends it for memory.

It takes no privilege and no cgroup, only that the tree is below this process. What it can not do is react faster than
it looks, ten to a hundred times a second; the limits of the pod stay the hard ones.
"""

import signal
import time

from kubechain_mcp_host.guard.limits import PERIOD, CpuBudget, describe_excess
from kubechain_mcp_host.guard.meter import measure_cpu, measure_memory
from kubechain_mcp_host.guard.tree import find_descendants, signal_tree


class Enforcer:
    """``step`` is called whenever the seconds that it returned have passed; ``release`` lets the tree run freely, so
    that it can leave.
    """

    def __init__(self, memory: int, cpu: float) -> None:
        """``memory`` is in bytes, ``cpu`` in cores; 0 is no limit."""
        self._memory = memory
        self._budget = CpuBudget(cpu, time.monotonic(), measure_cpu(find_descendants())) if cpu else None
        self._stopped = False
        self.verdict = ""
        """Why the tree was ended; empty if it was not."""

    def step(self) -> float:
        pids = find_descendants()
        if self._memory:
            used = measure_memory(pids, self._memory)
            if used > self._memory:
                self.verdict = describe_excess(used, self._memory)
                return PERIOD
        if self._budget is None:
            return PERIOD
        self._budget.charge(time.monotonic(), measure_cpu(pids))
        if self._budget.paused:
            signal_tree(signal.SIGSTOP)  # each time: what was forked at the wrong moment is met on the next look
        elif self._stopped:
            signal_tree(signal.SIGCONT)
        self._stopped = self._budget.paused
        return self._budget.next_look()

    def release(self) -> None:
        if self._stopped:
            signal_tree(signal.SIGCONT)
        self._stopped = False
