"""What a tree of processes uses, by /proc."""

import os

from kubechain_mcp_host.guard.tree import read

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


def measure_memory(pids: "list[int]", limit: int) -> int:
    """Bytes in memory. Pages that several share count once, but that is dear to find out: only a sum over ``limit`` is
    looked into.
    """
    resident = sum(_resident(pid) for pid in pids)
    if resident <= limit:
        return resident
    return sum(_proportional(pid) for pid in pids)


def measure_cpu(pids: "list[int]") -> float:
    """Seconds of CPU time that these have used, and all those that ended below this process before them."""
    ended = os.times()
    return ended.children_user + ended.children_system + sum(_cpu_ticks(pid) for pid in pids) / _TICKS


def _resident(pid: int) -> int:
    try:
        return int(read(f"/proc/{pid}/statm").split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def _proportional(pid: int) -> int:
    """The process's share of its pages; all of them where it does not let us see (it has changed its user, say).

    None if it has just ended: its pages are no longer its own.
    """
    try:
        for line in read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    return _resident(pid)


def _cpu_ticks(pid: int) -> int:
    """The process's own CPU ticks, and those of the children that it has waited for."""
    try:
        fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        return sum(int(fields[i]) for i in (11, 12, 13, 14))
    except (OSError, IndexError, ValueError):
        return 0
