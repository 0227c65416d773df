"""The cluster itself is one: pods start, find each other by name, can be looked into, and are held to policies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.cluster.support.clusters import Cluster
from tests.cluster.support.images import VERSION
from tests.e2e.support.kubectl import Kubectl

from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.cluster

NAMESPACE = "kubechain-test-node"
SERVE = "import http.server as h; print('serving'); h.test(h.SimpleHTTPRequestHandler, port=8080)"
FETCH = "import urllib.request as u; print(u.urlopen('http://web:8080', timeout={timeout}).status)"


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster) -> Iterator[Kubectl]:
    """A namespace with a pod `web` that serves, its Service, and a pod `client`."""
    admin = cluster.kubectl("default")
    admin("create", "namespace", NAMESPACE)
    kubectl = cluster.kubectl(NAMESPACE)
    image = f"kubechain/task-controller:{VERSION}"
    kubectl.apply(pod("web", image, SERVE), pod("client", image, "import signal; signal.pause()"))
    kubectl("expose", "pod", "web", "--port=8080")
    for name in ("web", "client"):
        kubectl.wait(f"pod/{name}", timeout=60)
    yield kubectl
    admin("delete", "namespace", NAMESPACE, "--wait=false")


def pod(name: str, image: str, code: str) -> dict[str, object]:
    container = {"name": name, "image": image, "command": ["/app/.venv/bin/python", "-u", "-c", code]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def fetch(kubectl: Kubectl, timeout: float = 5.0) -> str:
    """What the client gets of the Service by its name; empty when it gets nothing."""
    code = FETCH.format(timeout=timeout)
    return kubectl.try_run("exec", "client", "--", "/app/.venv/bin/python", "-c", code).stdout.strip()


def test_a_service_is_found_by_its_name(kubectl: Kubectl) -> None:
    eventually(lambda: fetch(kubectl) == "200", 30, what="the page of pod web")


def test_logs_are_shown(kubectl: Kubectl) -> None:
    assert "serving" in kubectl("logs", "web")


def test_a_network_policy_is_enforced(cluster: Cluster, kubectl: Kubectl) -> None:
    if not cluster.enforces_policies:
        pytest.skip("whether this cluster enforces NetworkPolicies is not known")
    nobody = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]}
    kubectl.apply(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "nobody"},
            "spec": nobody,
        }
    )
    eventually(lambda: fetch(kubectl, timeout=1) == "", 30, what="no page of pod web")
    kubectl("delete", "networkpolicy", "nobody")
    eventually(lambda: fetch(kubectl, timeout=2) == "200", 30, what="the page again")
