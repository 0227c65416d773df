"""The node's binaries: the control plane's, and those that `node/` names, built once and kept in the user's cache."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kubechain_cli.localcluster.binaries import get_control_plane
from kubechain_cli.localcluster.layout import cache_root
from kubechain_cli.localcluster.sources import go_build
from kubechain_cli.localcluster.sources.cache import BinaryCache
from kubechain_cli.localcluster.sources.pinned import Pins, cache_key, current_platform

MODULE = Path(__file__).resolve().parents[1] / "node"
CNI_PLUGINS = ("bridge", "host-local", "loopback", "portmap")
BUILT = (
    "containerd",
    "containerd-shim-runc-v2",
    "coredns",
    "ctr",
    "kube-proxy",
    "kube-scheduler",
    "kubelet",
    "netpol",
    "pause",
    *CNI_PLUGINS,
)


@dataclass(frozen=True)
class Lines:
    """A Progress that prints a line for each step."""

    subject: str

    def note(self, text: str) -> None:
        print(f"{self.subject}: {text}", file=sys.stderr, flush=True)

    @contextmanager
    def step(self, title: str, *, size: bool = False) -> Iterator[Lines]:
        self.note(title)
        yield self

    def advance(self, done: float, total: float | None, detail: str = "") -> None:
        """Nobody watches."""


def get_binaries() -> dict[str, Path]:
    """Every binary of a node by name; builds what is not in the cache. Raises BinaryUnavailableError."""
    return {**get_control_plane(Lines("control plane")).paths, **get_node_binaries()}


def get_node_binaries() -> dict[str, Path]:
    """Those of `node/`: all in one folder."""
    pins = Pins((MODULE / "go.mod").read_text(), (MODULE / "go.sum").read_text())
    own = {str(path.relative_to(MODULE)): path.read_text() for path in sorted(MODULE.glob("*/*.go"))}
    platform = current_platform()
    with_own = Pins(pins.go_mod, pins.go_sum + "".join(own.values()))
    cache = BinaryCache(cache_root(), cache_key(with_own, platform), "node", BUILT)
    found = cache.find()
    if found is not None:
        return found
    with cache.locked():
        found = cache.find()
        if found is None:
            built = go_build.build(pins, platform, cache, Lines("node"), own)
            found = cache.store(built)
            shutil.rmtree(cache.root / "build" / cache.key, ignore_errors=True)
    return found
