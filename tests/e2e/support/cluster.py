"""The whole product on this machine, driven as any script would drive it: through the `kubechain` command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.state import ClusterState, ProcessState, read_running_state
from kubechain_common.testing.eventually import eventually

SERVICES = ("task-controller", "llm-gateway", "toolcall-controller", "mcp-host", "human-bridge")
BIN = Path(sys.executable).parent
UP_SECONDS = 900.0
"""The first `up` on a machine may have to build the control plane; after that it takes about ten seconds."""
TAIL_LINES = 40


@dataclass
class Cluster:
    """One running product. ``secrets`` collects every secret value that a test gave to it."""

    state_dir: Path
    env: dict[str, str]
    traces: bool = False
    secrets: set[str] = field(default_factory=set)

    @property
    def kubeconfig(self) -> Path:
        return self.state_dir / "kubeconfig"

    @property
    def logs(self) -> Path:
        return self.state_dir / "logs"

    def run_cli(self, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run the `kubechain` command on this cluster."""
        return subprocess.run(
            [str(BIN / "kubechain"), *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    @property
    def page_url(self) -> str:
        """Where human-bridge serves people and the answers of their programs."""
        return str(self.status()["pageUrl"])

    def status(self) -> dict[str, Any]:
        """What `kubechain status -o json` prints, without a process for each; its supervisor says who is ready."""
        return self._read_state().to_status()

    def process(self, name: str) -> dict[str, Any]:
        """What the status says of one process."""
        return self._read_process(name).to_status()

    def _read_state(self) -> ClusterState:
        state = read_running_state(Layout.at(self.state_dir))
        assert state is not None, "the supervisor died, or nothing runs"
        return state

    def _read_process(self, name: str) -> ProcessState:
        return next(process for process in self._read_state().processes if process.name == name)

    def wait_restarted(self, name: str, old_pid: int, timeout: float = 30.0) -> None:
        """Return once the supervisor has the process running and ready again under another pid."""

        def is_back() -> bool:
            process = self._read_process(name)
            return process.ready and process.pid != old_pid

        eventually(is_back, timeout, what=f"{name} back after pid {old_pid} was killed")

    def kill_again(self, name: str, killed: int | None = None, timeout: float = 30.0) -> int:
        """kill -9 as soon as the process is ready under another pid than the one ``killed`` last; the pid.

        Returns without waiting for it to come back.
        """

        def find_pid() -> int | None:
            process = self._read_process(name)
            return process.pid if process.ready and process.pid != killed else None

        pid = eventually(find_pid, timeout, what=f"{name} back after pid {killed} was killed")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return pid

    def tail_logs(self, lines: int = TAIL_LINES) -> str:
        """The end of every service's log, for a failure report."""
        parts = []
        for name in SERVICES:
            log = self.logs / f"{name}.log"
            text = log.read_text(errors="replace").splitlines() if log.exists() else ["(no log)"]
            parts.append(f"--- {name}: the last lines of {log}")
            parts += text[-lines:]
        return "\n".join(parts)


def build_environment(state_dir: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Ours without anything that would tell a service or a command of another cluster or of real keys."""
    foreign = ("KUBECONFIG", "OPENAI_API_KEY", "ANTHROPIC_API_KEY")
    kept = {k: v for k, v in os.environ.items() if k not in foreign and not k.startswith(("KUBECHAIN_", "OTEL_"))}
    return {**kept, "KUBECHAIN_HOME": str(state_dir), "PATH": f"{BIN}{os.pathsep}{kept.get('PATH', '')}", **extra}


@contextmanager
def running_cluster(
    state_dir: Path, *, otlp_url: str, humanlayer_url: str, settings: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """`kubechain up --detach`, the cluster, `kubechain down`. Spans go to ``otlp_url``, and people are behind the
    HumanLayer API at ``humanlayer_url``; ``settings`` are more environment of the services.
    """
    told = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "KUBECHAIN_BRIDGE_HUMANLAYER_URL": humanlayer_url,
        **(settings or {}),
    }
    cluster = Cluster(state_dir, build_environment(state_dir, told), traces=True)
    try:
        up = cluster.run_cli("up", "--detach", timeout=UP_SECONDS)
        assert up.returncode == 0, f"kubechain up failed:\n{up.stdout}{up.stderr}\n{cluster.tail_logs()}"
        yield cluster
    finally:
        cluster.run_cli("down", "--purge", timeout=90)


def existing_cluster(state_dir: Path) -> Cluster:
    """A cluster that runs already; it is left running."""
    cluster = Cluster(state_dir, build_environment(state_dir, {}))
    assert cluster.status()["processes"], f"nothing runs in {state_dir}"
    return cluster


def find_kubectl() -> str:
    """The kubectl beside our interpreter, else the one on PATH."""
    found = shutil.which("kubectl", path=f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}")
    assert found, "kubectl comes with the development dependencies: run make setup"
    return found
