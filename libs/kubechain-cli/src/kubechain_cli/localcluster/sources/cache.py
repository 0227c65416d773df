"""The content-addressed cache: one folder per pinned set of versions and platform, shared by all clusters of a user.

A folder appears with all its binaries or not at all, because it is filled elsewhere and then renamed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kubechain_cli.localcluster.lock import hold_lock
from kubechain_cli.localcluster.sources.pinned import CONTROL_PLANE


@dataclass(frozen=True)
class BinaryCache:
    """The part of the cache that holds one set of binaries; ``root`` is the cache folder of kubechain."""

    root: Path
    key: str
    kind: str = "controlplane"
    names: tuple[str, ...] = CONTROL_PLANE

    @property
    def directory(self) -> Path:
        """Where the binaries of this key lie."""
        return self.root / self.kind / self.key

    @property
    def partial(self) -> Path:
        """Unfinished downloads of this key; kept so that the next attempt goes on where this one ended."""
        return self.root / "partial" / self.key

    def find(self) -> dict[str, Path] | None:
        """The binaries by name, or None when they are not cached."""
        found = {name: self.directory / name for name in self.names}
        return found if all(os.access(path, os.X_OK) for path in found.values()) else None

    def store(self, binaries: Mapping[str, Path]) -> dict[str, Path]:
        """Move finished binaries in, all at once, and return their new paths."""
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=self.directory.parent, prefix=f".{self.key}."))
        try:
            for name, path in binaries.items():
                shutil.move(path, staging / name)
                (staging / name).chmod(0o755)
            staging.chmod(0o755)
            shutil.rmtree(self.directory, ignore_errors=True)
            staging.rename(self.directory)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return {name: self.directory / name for name in binaries}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One download or build at a time; a second ``up`` waits for the first and then finds its result."""
        self.root.mkdir(parents=True, exist_ok=True)
        with hold_lock(self.root / f"{self.kind}.lock", wait=True):
            yield
