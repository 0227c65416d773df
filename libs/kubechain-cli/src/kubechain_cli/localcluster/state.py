"""state.json: the supervisor's word on the cluster, and whether that supervisor is still alive.

``status`` shows a subset of it (``to_status``), the contract for scripts; it asks who is ready (``readiness``).
Marks of their start stand beside the pids so that a number that the system gave to someone else is never mistaken for
one of ours.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kubechain_cli.localcluster.files import write_atomic
from kubechain_cli.localcluster.identity import StartMark, is_alive
from kubechain_cli.localcluster.layout import Layout


@dataclass(frozen=True)
class ProcessState:
    """One process; ``pid`` is None while it is down, ``started_at`` tells it from others of that pid."""

    name: str
    pid: int | None
    port: int | None
    ready: bool
    restarts: int
    log_file: str
    started_at: StartMark | None = None

    def to_status(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "pid": self.pid,
            "port": self.port,
            "ready": self.ready,
            "restarts": self.restarts,
            "logFile": self.log_file,
        }


@dataclass(frozen=True)
class ClusterState:
    """A cluster as its supervisor sees it. ``complete`` is True once everything was ready for the first time.

    ``page_url`` is where people find what waits for them; None where human-bridge does not run.
    """

    kubeconfig: str
    nats_url: str
    state_dir: str
    supervisor_pid: int
    supervisor_started_at: StartMark | None
    complete: bool
    processes: tuple[ProcessState, ...]
    page_url: str | None = None

    @property
    def ready(self) -> bool:
        """Everything came up and every process is ready now."""
        return self.complete and all(process.ready for process in self.processes)

    def to_status(self) -> dict[str, Any]:
        """The JSON contract of ``kubechain status -o json``."""
        return {
            "kubeconfig": self.kubeconfig,
            "natsUrl": self.nats_url,
            "pageUrl": self.page_url,
            "stateDir": self.state_dir,
            "supervisorPid": self.supervisor_pid,
            "processes": [process.to_status() for process in self.processes],
        }


def write_state(path: Path, state: ClusterState) -> None:
    """Replace the state file in one step."""
    write_atomic(path, json.dumps(asdict(state), indent=2) + "\n")


def read_state(layout: Layout) -> ClusterState | None:
    """What the last supervisor wrote, whether it still lives or not; None when there is nothing readable."""
    try:
        raw = json.loads(layout.state.read_text())
        processes = tuple(ProcessState(**process) for process in raw.pop("processes"))
        return ClusterState(**raw, processes=processes)
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return None


def read_running_state(layout: Layout) -> ClusterState | None:
    """The state of the cluster of this directory if its supervisor is alive, else None."""
    state = read_state(layout)
    if state is None or not is_alive(state.supervisor_pid, state.supervisor_started_at):
        return None
    return state
