"""What is installed can be removed: the definitions, their objects and the policies, and it can be installed again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.cluster import UP_SECONDS, Cluster, build_environment
from tests.e2e.support.kubectl import Kubectl

from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ("crds", "deploy/kustomize/policies")


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """An API server of the test's own: what is removed here is missed nowhere else."""
    cluster = Cluster(tmp_path / "state", build_environment(tmp_path / "state", {}))
    try:
        up = cluster.run_cli("up", "--detach", "--services", "none", timeout=UP_SECONDS)
        assert up.returncode == 0, up.stderr
        yield cluster
    finally:
        cluster.run_cli("down", "--purge", timeout=90)


@pytest.mark.requirement("cleanup-definitions")
def test_everything_that_was_installed_is_removed(own_cluster: Cluster) -> None:
    kubectl = Kubectl(own_cluster.kubeconfig, "default")
    kubectl.apply(manifests.agent(), manifests.task("t", "hi"))

    def left() -> list[str]:
        kinds = (
            "crd",
            "validatingadmissionpolicy,validatingadmissionpolicybinding",
            "mutatingadmissionpolicy,mutatingadmissionpolicybinding",
            "clusterrole",
        )
        names = [name for kind in kinds for name in kubectl("get", kind, "-o", "name").split()]
        return [name for name in names if "kubechain" in name]

    assert len(left()) == 6 + 2 + 2 + 1
    for folder in INSTALLED:
        kubectl("delete", "-k", str(ROOT / folder))
    eventually(lambda: left() == [], 20, what="nothing of KubeChain left")
    for folder in INSTALLED:
        kubectl("apply", "-k", str(ROOT / folder))
    kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s")
    assert kubectl("get", "kubechain", "-o", "name") == ""
