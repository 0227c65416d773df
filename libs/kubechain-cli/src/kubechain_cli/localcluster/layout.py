"""Where things lie: the state directory of one cluster and the cache that all clusters of a user share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


def cache_root() -> Path:
    """The user's cache folder of kubechain; safe to delete at any time."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kubechain"


def default_state_dir(env: Mapping[str, str] = os.environ) -> Path:
    """KUBECHAIN_HOME, else the ``kubechain`` folder of the user's state folder."""
    home = env.get("KUBECHAIN_HOME")
    if home:
        return Path(home)
    base = env.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "kubechain"


@dataclass(frozen=True)
class Layout:
    """The files of one cluster's state directory.

    ``data`` (etcd, nats) and ``logs`` are a run's product and go with ``down``; ``pki``, ``kubeconfig`` and
    ``ports.json`` stay, so that the next ``up`` answers at the same address and a shell that exported KUBECONFIG goes
    on working.
    """

    root: Path

    @classmethod
    def at(cls, state_dir: Path | None) -> Layout:
        """The layout of the directory given, or of the default one."""
        return cls((state_dir or default_state_dir()).expanduser().absolute())

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def ports(self) -> Path:
        return self.root / "ports.json"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def lock(self) -> Path:
        return self.root / "supervisor.lock"

    @property
    def supervisor_log(self) -> Path:
        return self.logs / "supervisor.log"

    def log_file(self, process: str) -> Path:
        return self.logs / f"{process}.log"

    def create(self) -> None:
        """Make the directories; the root is the user's alone, because keys and tokens lie in it."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for directory in (self.data, self.logs, self.pki):
            directory.mkdir(exist_ok=True, mode=0o700)
