"""The cluster that the tests run on: one of our own by default, a kind cluster, or one that is there.

KUBECHAIN_TEST_CLUSTER=kind makes a kind cluster and deletes it afterwards. KUBECHAIN_TEST_KUBECONFIG=FILE uses what the
file leads to: its nodes must have the images, and KUBECHAIN_TEST_MACHINE names an address of this machine that its pods
can reach. The tests install KubeChain on it and remove it again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.support import machine
from tests.cluster.support.node import running_node
from tests.e2e.support.cluster import build_environment
from tests.e2e.support.kubectl import Kubectl

DNS = Path(__file__).with_name("dns.yaml")
KIND_NAME = "kubechain-test"
KIND_SECONDS = 300.0


class NoClusterError(Exception):
    """Why there can be none here."""


@dataclass(frozen=True)
class Cluster:
    """``machine_address`` is where pods reach servers of the test; ``describe`` shows the cluster's own logs.

    What is on a disposable one need not be removed: it goes with the cluster. ``secrets`` and ``env`` are what the
    steps of the tutorial want of a cluster (tests/e2e).
    """

    kubeconfig: Path
    machine_address: str
    load_images: Callable[[Path], None]
    describe: Callable[[], str] = str
    enforces_policies: bool = False
    is_disposable: bool = False
    secrets: set[str] = field(default_factory=set)
    env: Mapping[str, str] = field(default_factory=lambda: build_environment(Path("none"), {}))

    def kubectl(self, namespace: str) -> Kubectl:
        return Kubectl(self.kubeconfig, namespace)


def has_images() -> bool:
    """Whether the cluster is one that comes with the images."""
    return "KUBECHAIN_TEST_KUBECONFIG" in os.environ


@contextmanager
def open_cluster(state: Path) -> Iterator[Cluster]:
    """Raises NoClusterError."""
    given = os.environ.get("KUBECHAIN_TEST_KUBECONFIG")
    if given:
        yield Cluster(Path(given), os.environ.get("KUBECHAIN_TEST_MACHINE", "127.0.0.1"), lambda _: None)
    elif os.environ.get("KUBECHAIN_TEST_CLUSTER") == "kind":
        with kind_cluster(state) as cluster:
            yield cluster
    else:
        reason = machine.why_not()
        if reason:
            raise NoClusterError(reason)
        with running_node(state) as node:
            cluster = Cluster(node.kubeconfig, node.machine_address, node.load_images, node.tail_logs, True, True)
            system = cluster.kubectl("kube-system")
            system("apply", "-f", str(DNS))
            system("rollout", "status", "deployment/coredns", "--timeout=90s", timeout=100)
            yield cluster


@contextmanager
def kind_cluster(state: Path) -> Iterator[Cluster]:
    """One of this name that runs already is used and kept."""
    if shutil.which("kind") is None:
        raise NoClusterError("KUBECHAIN_TEST_CLUSTER=kind, and there is no kind on PATH")
    kubeconfig = state / "kubeconfig"
    state.mkdir(parents=True)
    named = f"--name={KIND_NAME}"
    is_new = KIND_NAME not in _output("kind", "get", "clusters").split()
    if is_new:
        _output("kind", "create", "cluster", named, f"--kubeconfig={kubeconfig}", "--wait=180s")
    try:
        kubeconfig.write_text(_output("kind", "get", "kubeconfig", named))
        networks = json.loads(_output("docker", "network", "inspect", "kind"))[0]["IPAM"]["Config"]
        gateway = next(n["Gateway"] for n in networks if ":" not in n["Subnet"])
        address = os.environ.get("KUBECHAIN_TEST_MACHINE", gateway)
        yield Cluster(kubeconfig, address, lambda archive: _load_into_kind(archive))
    finally:
        if is_new:
            _output("kind", "delete", "cluster", named)


def _load_into_kind(archive: Path) -> None:
    _output("kind", "load", "image-archive", str(archive), f"--name={KIND_NAME}")


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=KIND_SECONDS)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
