"""Whose turn it is in a state directory: ours, with its lock, or that of the supervisor that runs there.

Whoever has the lock prepares, runs or cleans, and nobody else ends a process or writes a file meanwhile. One that
prepares or cleans is waited for: soon its cluster runs, or the lock is free.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from kubechain_cli.localcluster.errors import AlreadyRunningError
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.lock import hold_lock
from kubechain_cli.localcluster.state import ClusterState, read_running_state

LOCK_TIMEOUT = 30.0
_POLL_INTERVAL = 0.05


@contextmanager
def take_turn(layout: Layout, timeout: float = LOCK_TIMEOUT) -> Iterator[int | ClusterState]:
    """The lock's descriptor, held inside the ``with``; or the cluster of the supervisor that holds it.

    Raises AlreadyRunningError when neither is to be had for ``timeout`` seconds.
    """
    with ExitStack() as held:
        yield _await_turn(held, layout, timeout)


def _await_turn(held: ExitStack, layout: Layout, timeout: float) -> int | ClusterState:
    deadline = time.monotonic() + timeout
    while True:
        layout.create()
        try:
            return held.enter_context(hold_lock(layout.lock))
        except AlreadyRunningError:
            running = read_running_state(layout)
            if running is not None:
                return running
            if time.monotonic() >= deadline:
                raise
        time.sleep(_POLL_INTERVAL)
