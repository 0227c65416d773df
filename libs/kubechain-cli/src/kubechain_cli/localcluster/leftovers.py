"""Ending what a supervisor that was killed left behind. Only processes that are provably ours: pid and start time."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from kubechain_cli.localcluster.state import ClusterState, is_alive

if TYPE_CHECKING:
    import psutil


def end_leftovers(state: ClusterState, *, timeout: float = 5.0) -> list[str]:
    """SIGKILL the groups of recorded processes that still run; returns their names once they are gone."""
    import psutil

    ended: list[str] = []
    waiting: list[psutil.Process] = []
    for process in state.processes:
        if process.pid is None or process.started_at is None or not is_alive(process.pid, process.started_at):
            continue
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            waiting.append(psutil.Process(process.pid))
            os.killpg(process.pid, signal.SIGKILL)
            ended.append(process.name)
    psutil.wait_procs(waiting, timeout=timeout)
    return ended
