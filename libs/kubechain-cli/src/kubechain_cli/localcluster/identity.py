"""Which process a pid means: the system gives pids again, so each stands beside a mark of when its process started.

On Linux the mark is a text, the id of the boot and the ticks since then: a step of the clock moves neither, while it
moves what psutil calls the time of creation. Elsewhere the mark is that time, a number. Versions that knew only numbers
left them in state files on Linux too; these are compared as those versions did, so a cluster of theirs can be stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path

StartMark = float | str
# Older versions took the number from two clocks (ours and the kernel's ticks since boot).
START_TIME_TOLERANCE = 2.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def read_start(pid: int) -> StartMark | None:
    """The mark of the process that has this pid now; None when there is none, or it only waits to be reaped."""
    return _read_ticks(pid) if sys.platform == "linux" else _read_time(pid)


def is_alive(pid: int, started_at: StartMark | None) -> bool:
    """Whether the process that had this pid and this mark still runs."""
    if started_at is None:
        return False
    if isinstance(started_at, str):
        return _read_ticks(pid) == started_at
    time = _read_time(pid)
    return time is not None and abs(time - started_at) <= START_TIME_TOLERANCE


def _read_ticks(pid: int) -> str | None:
    try:
        boot, stat = _BOOT_ID.read_text().strip(), Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name before it is in parentheses, and may hold spaces and parentheses itself.
    state, *numbers = stat.rpartition(b")")[2].split()
    return None if state in (b"Z", b"X") else f"{boot} {int(numbers[18])}"


def _read_time(pid: int) -> float | None:
    import psutil  # 60 ms, and `--help` needs none of it

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return None
