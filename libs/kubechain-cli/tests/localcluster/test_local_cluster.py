"""A real control plane and a real NATS, brought up and down by the command that users run."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from kubechain_cli.localcluster.sources.wheels import find_kubectl
from kubechain_cli.localcluster.tokens import administrator, read_token
from kubechain_common.testing.eventually import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

NAMES = ["etcd", "kube-apiserver", "kube-controller-manager", "nats"]


class Cluster:
    """One state directory, driven through the command line only."""

    def __init__(self, state_dir: Path, env: dict[str, str] | None = None) -> None:
        self.state_dir = state_dir
        self.env = {**os.environ, **(env or {})}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kubechain_cli", *arguments, "--state-dir", str(self.state_dir)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=self.env, timeout=170)

    def up(self, *options: str) -> dict[str, Any]:
        result = self.run("up", "--detach", "--services", "none", "-o", "json", *options)
        assert result.returncode == 0, result.stderr
        status: dict[str, Any] = json.loads(result.stdout)
        return status

    def status(self) -> dict[str, Any]:
        result = self.run("status", "-o", "json")
        return json.loads(result.stdout) if result.stdout else {}

    def process(self, name: str) -> dict[str, Any]:
        return next(process for process in self.status()["processes"] if process["name"] == name)

    def kubectl(self, *arguments: str) -> str:
        command = [str(find_kubectl()), f"--kubeconfig={self.state_dir / 'kubeconfig'}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def living(self) -> list[psutil.Process]:
        """Every process whose command line names the state directory."""
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(str(self.state_dir) in part for part in process.info["cmdline"] or [])
        ]


@contextmanager
def started(state_dir: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[Cluster]:
    cluster = Cluster(state_dir, env)
    try:
        cluster.up(*options)
        yield cluster
    finally:
        cluster.run("down", "--purge")
        assert cluster.living() == []


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("cluster") / "state") as running:
        yield running


def test_up_returns_a_cluster_that_answers(cluster: Cluster) -> None:
    status = cluster.status()
    assert [process["name"] for process in status["processes"]] == NAMES
    assert all(process["ready"] and process["restarts"] == 0 for process in status["processes"])
    assert cluster.kubectl("get", "--raw", "/readyz") == "ok"
    assert "tasks.kubechain.humanlayer.dev" in cluster.kubectl("get", "crd", "-o", "name")


def test_tokens_are_in_private_files_only(cluster: Cluster) -> None:
    """Not in logs, not in the plan or the state, and ``ps`` shows the path of their file at most."""
    file = cluster.state_dir / "pki" / "tokens.csv"
    files = {"admin": "kubeconfig", "controller-manager": "pki/controller-manager.kubeconfig"}
    for name, kubeconfig in files.items():
        token = read_token(file, administrator(name))
        holding = {path for path in cluster.state_dir.rglob("*") if path.is_file() and holds(path, token)}
        assert holding == {file, cluster.state_dir / kubeconfig}
        assert {stat.S_IMODE(path.stat().st_mode) for path in holding} == {0o600}
        shown = [part for process in cluster.living() for part in (*process.cmdline(), *process.environ().values())]
        assert not any(token in part for part in shown)


def holds(path: Path, token: str) -> bool:
    return token.encode() in path.read_bytes()


def test_a_wrong_token_is_refused(cluster: Cluster) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        cluster.kubectl("--token=wrong", "get", "namespaces")
    # Older kubectls say it in the API server's words, newer ones in their own.
    assert re.search("Unauthorized|provide credentials", refused.value.stderr)


def test_up_again_says_so_and_changes_nothing(cluster: Cluster) -> None:
    before = cluster.status()
    result = cluster.run("up", "--detach", "--services", "none")
    assert result.returncode == 0
    assert "Already running" in result.stderr
    assert cluster.status() == before


def test_owned_objects_are_collected(cluster: Cluster) -> None:
    cluster.kubectl("create", "configmap", "owner")
    uid = cluster.kubectl("get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}")
    cluster.kubectl("create", "configmap", "owned")
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    cluster.kubectl("patch", "configmap", "owned", "-p", json.dumps({"metadata": {"ownerReferences": [owner]}}))
    cluster.kubectl("delete", "configmap", "owner")
    cluster.kubectl("wait", "--for=delete", "configmap/owned", "--timeout=30s")


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_process_comes_back_at_its_port(cluster: Cluster, name: str) -> None:
    eventually(lambda: cluster.process(name)["ready"], 60)
    before = cluster.process(name)
    os.kill(before["pid"], signal.SIGKILL)
    eventually(lambda: cluster.process(name)["restarts"] > before["restarts"] and cluster.process(name)["ready"], 60)
    after = cluster.process(name)
    assert after["pid"] != before["pid"]
    assert after["port"] == before["port"]
    eventually(lambda: cluster.run("status").returncode == 0, 60)
    assert cluster.kubectl("get", "--raw", "/readyz") == "ok"


def test_status_asks_the_processes_themselves(cluster: Cluster) -> None:
    """The supervisor looks after etcd only now and then; it need not have noticed."""
    eventually(lambda: cluster.run("status").returncode == 0, 60)
    etcd = cluster.process("etcd")["pid"]
    os.kill(etcd, signal.SIGSTOP)
    try:
        assert cluster.run("status").returncode == 1
        assert not cluster.process("etcd")["ready"]
        assert "not ready: etcd" in cluster.run("doctor").stdout
    finally:
        os.kill(etcd, signal.SIGCONT)
    eventually(lambda: cluster.run("status").returncode == 0, 60)


def test_up_on_a_context_of_the_user_starts_nats_only(cluster: Cluster, tmp_path: Path) -> None:
    env = {"KUBECONFIG": str(cluster.state_dir / "kubeconfig")}
    with started(tmp_path / "state", "--context", "kubechain", env=env) as beside:
        assert [process["name"] for process in beside.status()["processes"]] == ["nats"]
        assert beside.kubectl("get", "--raw", "/readyz") == "ok"


def test_two_at_the_same_time_make_one_cluster(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "state")
    try:
        with ThreadPoolExecutor() as pool:
            first, second = pool.map(lambda _: cluster.up(), range(2))
        assert first["supervisorPid"] == second["supervisorPid"] == cluster.status()["supervisorPid"]
        eventually(lambda: cluster.run("status").returncode == 0, 60)
        assert [process["restarts"] for process in cluster.status()["processes"]] == [0] * len(NAMES)
        assert cluster.kubectl("get", "--raw", "/readyz") == "ok"
    finally:
        cluster.run("down", "--purge")
    assert cluster.living() == []


def test_an_unknown_context_is_said(cluster: Cluster, tmp_path: Path) -> None:
    other = Cluster(tmp_path / "state", {"KUBECONFIG": str(cluster.state_dir / "kubeconfig")})
    result = other.run("up", "--detach", "--services", "none", "--context", "nowhere")
    assert result.returncode == 1
    assert "nowhere" in result.stderr


def test_data_address_and_sign_in_survive_down_and_a_killed_supervisor(tmp_path: Path) -> None:
    with started(tmp_path / "state") as cluster:
        first, kubeconfig = cluster.status(), (cluster.state_dir / "kubeconfig").read_text()
        cluster.kubectl("create", "configmap", "kept")
        assert cluster.run("down", "--keep-data").returncode == 0
        assert cluster.living() == []
        second = cluster.up()
        assert ports(second) == ports(first)
        assert (cluster.state_dir / "kubeconfig").read_text() == kubeconfig
        assert cluster.kubectl("get", "configmap", "kept", "-o", "name").strip() == "configmap/kept"
        os.kill(second["supervisorPid"], signal.SIGKILL)
        eventually(lambda: cluster.run("status").returncode == 3, 60)
        third = cluster.up()
        assert ports(third) == ports(first)
        assert cluster.kubectl("get", "configmap", "kept", "-o", "name").strip() == "configmap/kept"


def test_a_directory_of_the_version_without_tokens_goes_on(tmp_path: Path) -> None:
    with started(tmp_path / "state") as cluster:
        cluster.kubectl("create", "configmap", "kept")
        assert cluster.run("down", "--keep-data").returncode == 0
        pki = cluster.state_dir / "pki"
        authority = (pki / "ca.crt").read_bytes()
        (pki / "tokens.csv").unlink()
        cluster.up()
        assert cluster.kubectl("get", "configmap", "kept", "-o", "name").strip() == "configmap/kept"
        assert (pki / "ca.crt").read_bytes() == authority


def ports(status: dict[str, Any]) -> dict[str, int]:
    return {process["name"]: process["port"] for process in status["processes"]}


def test_the_foreground_stops_everything_on_ctrl_c(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "state")
    command = [sys.executable, "-m", "kubechain_cli", "up", "--services", "none", "--state-dir", str(cluster.state_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as foreground:
        assert foreground.stdout is not None
        assert any(line.startswith("Ready.") for line in foreground.stdout)
        foreground.send_signal(signal.SIGINT)
        rest = foreground.stdout.read()
        assert foreground.wait(30) == 0
    assert rest == "Stopped.\n"
    assert cluster.living() == []
