"""Starting the supervisor in the background, listening to it until the cluster is up, and stopping it again."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from kubechain_cli.localcluster.errors import ProcessFailedError
from kubechain_cli.localcluster.files import tail
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.leftovers import end_leftovers, end_supervisor
from kubechain_cli.localcluster.lock import hold_lock
from kubechain_cli.localcluster.state import ClusterState, read_state
from kubechain_cli.own_modules import build_module_command


def start_supervisor(layout: Layout, lock: int) -> int:
    """Start the supervisor in a session of its own, and hand it the lock; returns the read end of its notify pipe."""
    read_end, write_end = os.pipe()
    options = ("--state-dir", str(layout.root), "--lock-fd", str(lock), "--notify-fd", str(write_end))
    with layout.supervisor_log.open("ab") as log:
        subprocess.Popen(
            build_module_command("kubechain_cli.localcluster.supervisor", *options),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[lock, write_end],
            start_new_session=True,
        )
    os.close(write_end)
    return read_end


def follow(read_end: int, layout: Layout, timeout: float) -> Iterator[dict[str, Any]]:
    """What the supervisor reports, up to {"up"} or {"failed"}; ends without either after ``timeout`` seconds.

    Raises ProcessFailedError when the supervisor goes away without a word.
    """
    deadline, buffer = time.monotonic() + timeout, b""
    with os.fdopen(read_end, "rb", buffering=0) as pipe:
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([pipe], [], [], left)[0]:
                return
            chunk = pipe.read(65_536)
            if not chunk:
                raise ProcessFailedError(
                    f"The supervisor ended. The end of {layout.supervisor_log}:\n{tail(layout.supervisor_log)}"
                )
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                event: dict[str, Any] = json.loads(line)
                yield event
                if "up" in event or "failed" in event:
                    return


def stop_cluster(layout: Layout, *, timeout: float = 40.0) -> ClusterState | None:
    """Stop the supervisor and whatever it may have left; returns the state it had, or None when nothing ran.

    Raises AlreadyRunningError when another ``up`` has begun since: what the state names then is not left but its own.
    """
    state = read_state(layout)
    if state is None:
        return None
    was_running = end_supervisor(state, timeout)
    with hold_lock(layout.lock):
        left = end_leftovers(read_state(layout) or state)
        layout.state.unlink(missing_ok=True)
    return state if was_running or left else None
