"""The control plane and nats-server, run by ``kubechain up --services none``, which restarts what dies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.until import until

from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.state import ProcessState, read_state

UP_SECONDS = 900.0
"""The first `up` on a machine may have to build the control plane; after that it takes about ten seconds."""


@dataclass(frozen=True)
class Cluster:
    """What all rounds of a sweep stand on."""

    layout: Layout

    def process(self, name: str) -> ProcessState:
        state = read_state(self.layout)
        if state is None:
            raise RuntimeError("the supervisor of the control plane has gone")
        return next(process for process in state.processes if process.name == name)

    def port(self, name: str) -> int:
        port = self.process(name).port
        assert port is not None
        return port

    async def wait_back(self, name: str, old_pid: int) -> None:
        """Returns once the process runs, ready, under another pid."""
        await until(lambda: self._is_back(name, old_pid))

    def drop_nats_storage(self) -> None:
        """Everything that JetStream holds, while nats-server still runs: it is to be killed next."""
        storage = self.layout.data / "nats"
        doomed = storage.with_name("nats-lost")
        storage.rename(doomed)

    def sweep_nats_storage(self) -> None:
        shutil.rmtree(self.layout.data / "nats-lost", ignore_errors=True)

    def _is_back(self, name: str, old_pid: int) -> bool:
        process = self.process(name)
        return process.ready and process.pid != old_pid


@contextmanager
def running_cluster(state_dir: Path) -> Iterator[Cluster]:
    foreign = ("KUBECONFIG", "OTEL_EXPORTER_OTLP_ENDPOINT")
    env = {k: v for k, v in os.environ.items() if k not in foreign and not k.startswith("KUBECHAIN_")}
    kubechain = [sys.executable, "-m", "kubechain_cli"]
    directory = ["--state-dir", str(state_dir)]
    try:
        subprocess.run(
            [*kubechain, "up", "--detach", "--services", "none", *directory],
            env=env,
            check=True,
            timeout=UP_SECONDS,
            stdout=subprocess.DEVNULL,
        )
        yield Cluster(Layout.at(state_dir))
    finally:
        subprocess.run([*kubechain, "down", *directory], env=env, check=True, timeout=90, stdout=subprocess.DEVNULL)
