"""Ending processes that are provably ours, by pid and mark of start: a supervisor, or what a killed one left behind."""

from __future__ import annotations

import os
import signal
import time

from kubechain_cli.localcluster.identity import StartMark, is_alive
from kubechain_cli.localcluster.state import ClusterState

_POLL_INTERVAL = 0.02


def wait_gone(pid: int, started_at: StartMark | None, timeout: float) -> bool:
    """Wait up to ``timeout`` seconds until the process has ended; False when it still runs then.

    One that only waits to be reaped has ended: its parent may be an init that takes its time.
    """
    deadline = time.monotonic() + timeout
    while is_alive(pid, started_at):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_INTERVAL)
    return True


def end_supervisor(state: ClusterState, timeout: float) -> bool:
    """SIGTERM, then SIGKILL after ``timeout`` seconds; False when there was none running."""
    pid, started_at = state.supervisor_pid, state.supervisor_started_at
    if not is_alive(pid, started_at):
        return False
    try:
        os.kill(pid, signal.SIGTERM)
        if not wait_gone(pid, started_at, timeout):
            os.kill(pid, signal.SIGKILL)
            wait_gone(pid, started_at, timeout=5)
    except ProcessLookupError:
        pass
    return True


def end_leftovers(state: ClusterState) -> list[str]:
    """SIGKILL the groups of recorded processes that still run; returns their names once they are gone.

    The caller holds the lock of the directory: without it they may be the children of a supervisor that runs.
    """
    ended: dict[str, tuple[int, StartMark | None]] = {}
    for process in state.processes:
        pid, started_at = process.pid, process.started_at
        if pid is None or not is_alive(pid, started_at):
            continue
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        ended[process.name] = (pid, started_at)
    for pid, started_at in ended.values():
        wait_gone(pid, started_at, timeout=5)
    return list(ended)
