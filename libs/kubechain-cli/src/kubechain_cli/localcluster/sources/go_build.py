"""Building the control plane from its pinned sources with Go: six to eight minutes on two cores, once.

The packaged module names etcd, kube-apiserver and kube-controller-manager as its tools, so one ``go build tool`` makes
all three; any other module with tools is built the same way. Go verifies every source against go.sum, and its own build
cache lets an interrupted build go on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kubechain_cli.localcluster.errors import BuildError
from kubechain_cli.localcluster.sources.cache import BinaryCache
from kubechain_cli.localcluster.sources.go_toolchain import get_go
from kubechain_cli.localcluster.sources.pinned import Pins, Platform

if TYPE_CHECKING:
    from kubechain_cli.localcluster.sources.progress import Progress, Step

# Go names a binary after its import path: etcd's command lives in the package `server`.
BUILT_AS = {"etcd": "server"}


def build(
    pins: Pins, target: Platform, cache: BinaryCache, progress: Progress, own: Mapping[str, str] | None = None
) -> dict[str, Path]:
    """Build the cache's binaries and return where they are. Raises BuildError.

    ``own`` are the module's own sources: text by path.
    """
    go = get_go(pins.go, cache.root, progress)
    module = cache.root / "build" / cache.key
    module.mkdir(parents=True, exist_ok=True)
    (module / "go.mod").write_text(pins.go_mod)
    (module / "go.sum").write_text(pins.go_sum)
    for path, text in (own or {}).items():
        (module / path).parent.mkdir(parents=True, exist_ok=True)
        (module / path).write_text(text)
    output = module / "bin"
    shutil.rmtree(output, ignore_errors=True)
    env = build_env(target)
    progress.note(f"Building {', '.join(cache.names)} ({pins.kubernetes}) with Go; minutes, but only once.")
    with progress.step("Fetching sources") as step:
        packages = _count_packages([str(go), "list", "-deps", "tool"], module, env, step)
    with progress.step("Compiling") as step:
        _compile(build_command(go, pins, output), module, env, step, packages)
    return {name: output / BUILT_AS.get(name, name) for name in cache.names}


def build_command(go: Path, pins: Pins, output: Path) -> list[str]:
    """The ``go build``; the version is linked in, or the API server would call itself v0.0.0."""
    flags = f"-s -w -X k8s.io/component-base/version.gitVersion={pins.kubernetes}"
    # The trailing slash makes -o a directory even before it exists.
    return [str(go), "build", "-v", "-trimpath", "-ldflags", flags, "-o", f"{output}/", "tool"]


def build_env(target: Platform) -> dict[str, str]:
    """The caller's environment without the settings that would change what is built, or keep it from being built.

    GOROOT may be that of another Go than the one that builds, which finds its own.
    """
    env = {name: value for name, value in os.environ.items() if name not in ("GOFLAGS", "GOROOT")}
    ours = {"CGO_ENABLED": "0", "GOOS": target.os, "GOARCH": target.arch, "GOWORK": "off", "GO111MODULE": "on"}
    return {**env, **ours}


def _count_packages(command: list[str], cwd: Path, env: dict[str, str], step: Step) -> int:
    modules = 0
    packages = 0
    for line in _lines(command, cwd, env):
        if line.startswith("go: downloading "):
            modules += 1
            step.advance(modules, None, line.removeprefix("go: downloading "))
        elif not line.startswith("go: "):
            packages += 1
    return packages


def _compile(command: list[str], cwd: Path, env: dict[str, str], step: Step, packages: int) -> None:
    for compiled, line in enumerate(_lines(command, cwd, env), start=1):
        # Packages in Go's build cache are not named, so the count may end below the total.
        step.advance(compiled, packages, line)


def _lines(command: list[str], cwd: Path, env: dict[str, str]) -> Iterator[str]:
    """The command's output line by line. Raises BuildError with its end when the command fails."""
    last: deque[str] = deque(maxlen=15)
    with subprocess.Popen(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            last.append(line.rstrip())
            yield line.rstrip()
    if process.returncode != 0:
        raise BuildError(f"`{' '.join(command[:2])}` failed with exit code {process.returncode}:\n" + "\n".join(last))
