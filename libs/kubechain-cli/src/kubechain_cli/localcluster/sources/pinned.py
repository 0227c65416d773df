"""What exactly we run: the versions in the packaged go.mod, and the cache key that follows from its content.

go.mod is the single place that names versions. The official downloads of the same versions share the key, so either
way of getting the binaries fills the same folder.
"""

from __future__ import annotations

import hashlib
import platform
import re
import sys
from dataclasses import dataclass
from importlib import resources

from kubechain_cli.localcluster.errors import BinaryUnavailableError

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager")


@dataclass(frozen=True)
class Platform:
    """An operating system and processor under the names Go uses."""

    os: str
    arch: str

    def __str__(self) -> str:
        return f"{self.os}/{self.arch}"


@dataclass(frozen=True)
class Pins:
    """The packaged Go module: the two files and the versions they name."""

    go_mod: str
    go_sum: str

    @property
    def kubernetes(self) -> str:
        return self._version("k8s.io/kubernetes")

    @property
    def etcd(self) -> str:
        return self._version("go.etcd.io/etcd/server/v3")

    @property
    def go(self) -> tuple[int, int, int]:
        """The oldest Go that builds the module."""
        found = re.search(r"^go (\d+)\.(\d+)(?:\.(\d+))?$", self.go_mod, re.MULTILINE)
        if found is None:
            raise BinaryUnavailableError("The packaged go.mod names no Go version. Reinstall kubechain-cli.")
        return int(found[1]), int(found[2]), int(found[3] or 0)

    def _version(self, module: str) -> str:
        found = re.search(rf"^\s*{re.escape(module)} (v\S+)", self.go_mod, re.MULTILINE)
        if found is None:
            raise BinaryUnavailableError(f"The packaged go.mod does not require {module}. Reinstall kubechain-cli.")
        return found[1]


def load_pins() -> Pins:
    """The Go module that is shipped with this package."""
    module = resources.files("kubechain_cli.localcluster") / "controlplane"
    return Pins((module / "go.mod").read_text(), (module / "go.sum").read_text())


def current_platform() -> Platform:
    """This machine. Raises BinaryUnavailableError where the control plane cannot run."""
    systems = {"linux": "linux", "darwin": "darwin"}
    machines = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    os, arch = systems.get(sys.platform), machines.get(platform.machine().lower())
    if os is None or arch is None:
        raise BinaryUnavailableError(
            f"A local control plane does not run on {sys.platform}/{platform.machine()}. "
            "Use a cluster of your own: `kubechain up --context NAME`."
        )
    return Platform(os, arch)


def cache_key(pins: Pins, target: Platform) -> str:
    """The name of the cache folder for these pins on this platform."""
    digest = hashlib.sha256()
    for part in (pins.go_mod, pins.go_sum, str(target)):
        digest.update(part.encode())
    return digest.hexdigest()[:16]
