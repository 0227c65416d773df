"""A real control plane for the integration tests.

Without more ado one is brought up for the session and taken down again. ``KUBECHAIN_TEST_STATE_DIR=DIR`` uses that of
``kubechain up --detach --services none --state-dir DIR`` and saves its start.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

# importlib mode leaves sys.path alone, so the repository's root has to be on it for what the tests share.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.integration.people import PATCHER, POLICIES, Place

from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.state import ClusterState, read_running_state
from kubechain_common.kube.client import KubeClient

Eventually = Callable[..., Awaitable[None]]
Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]

REPOSITORY = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test comes first brings the control plane up, which is not to be taken from its own time."""
    for item in items:
        needs_it = isinstance(item, pytest.Function) and "control_plane" in item.fixturenames
        if needs_it and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(func_only=True))


@dataclass(frozen=True)
class ControlPlane:
    """The API server and NATS of a ``kubechain up``."""

    state_dir: Path
    kubeconfig: Path
    nats_url: str

    def kill(self, process: str) -> None:
        """Kills a process of the control plane; its supervisor starts it again."""
        pid = next(p.pid for p in _read_state(self.state_dir).processes if p.name == process)
        assert pid is not None, f"{process} is not running"
        os.kill(pid, signal.SIGKILL)

    def is_ready(self) -> bool:
        """Whether every process has answered since its start, and the last time that its supervisor looked."""
        return _read_state(self.state_dir).ready


@pytest.fixture(autouse=True)
async def connections_end_with_the_test() -> AsyncIterator[None]:
    """A request that was cut off says goodbye by TLS first; a loop that ends before the answer leaves its socket open,
    which would be told of in some later test.
    """
    yield
    transports = vars(asyncio.get_running_loop()).get("_transports", {})
    for _ in range(500):
        if all(transport.get_extra_info("socket").fileno() < 0 for transport in list(transports.values())):
            break
        await asyncio.sleep(0.01)


def _cli(*arguments: str) -> None:
    command = [sys.executable, "-m", "kubechain_cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"kubechain {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}"


def _read_state(state_dir: Path) -> ClusterState:
    state = read_running_state(Layout.at(state_dir))
    assert state is not None, f"no control plane runs in {state_dir}"
    return state


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    reused = os.environ.get("KUBECHAIN_TEST_STATE_DIR")
    state_dir = Path(reused) if reused else tmp_path_factory.mktemp("control-plane")
    if not reused:
        _cli("up", "--detach", "--services", "none", "--state-dir", str(state_dir))
    try:
        state = _read_state(state_dir)
        yield ControlPlane(state_dir, Path(state.kubeconfig), state.nats_url)
    finally:
        if not reused:
            _cli("down", "--state-dir", str(state_dir))


@pytest.fixture(scope="session")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    """Runs kubectl against the control plane, with the CRDs of this tree installed."""
    binary = shutil.which("kubectl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    assert binary, "kubectl comes with the development dependencies: run make setup"

    def run(*arguments: str, manifest: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binary, "--kubeconfig", str(control_plane.kubeconfig), *arguments],
            input=json.dumps(manifest) if manifest else None,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    applied = run("apply", "--server-side", "--force-conflicts", "-k", str(REPOSITORY / "crds"))
    assert applied.returncode == 0, applied.stderr
    established = run("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s")
    assert established.returncode == 0, established.stderr
    return run


@pytest.fixture(scope="session")
def applied(kubectl: Kubectl) -> Kubectl:
    """The policies of this tree, in force: the ones before them are gone from the API server's mind."""
    done = kubectl("apply", "--server-side", "--force-conflicts", "-k", str(POLICIES))
    assert done.returncode == 0, done.stderr
    return kubectl


@pytest.fixture(scope="session")
def roles(applied: Kubectl) -> Iterator[Kubectl]:
    """patcher may write calls, bridge may also answer for others; kubechain-approver comes with the policies."""
    names = {"patcher": PATCHER, "bridge": [*PATCHER, {**PATCHER[0], "verbs": ["decide", "decide-for"]}]}
    for name, rules in names.items():
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": f"test-{name}"},
            "rules": rules,
        }
        assert applied("apply", "-f", "-", manifest=role).returncode == 0
    yield applied
    applied("delete", "clusterrole", *(f"test-{name}" for name in names))


@pytest.fixture
def place(roles: Kubectl) -> Iterator[Place]:
    name = f"answers-{uuid4().hex[:8]}"
    assert roles("create", "namespace", name).returncode == 0
    yield Place(roles, name)
    roles("delete", "namespace", name, "--wait=false")


@pytest.fixture
async def kube(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubeClient]:
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    async with KubeClient.connect("kubechain-tests") as client:
        async with asyncio.timeout(60):  # it waits without an end, and the time limit of the tests is not for fixtures
            await client.wait_until_ready()
        yield client


@pytest.fixture
async def namespace(kube: KubeClient) -> AsyncIterator[str]:
    """A namespace of the test's own."""
    name = f"test-{uuid4().hex[:8]}"
    await kube.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
    yield name
    await kube.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def eventually() -> Eventually:
    """``await eventually(condition)``: returns once the function (or coroutine function) says True.

    Fails when it does not ``within`` so many seconds.
    """

    async def holds(condition: Callable[[], bool | Awaitable[bool]]) -> bool:
        answer = condition()
        return answer if isinstance(answer, bool) else await answer

    async def wait(condition: Callable[[], bool | Awaitable[bool]], *, within: float = 10.0) -> None:
        deadline = time.monotonic() + within
        while not await holds(condition):
            assert time.monotonic() < deadline, f"still not true after {within} s"
            await asyncio.sleep(0.005)

    return wait
