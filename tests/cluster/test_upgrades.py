"""An older release, then this one over it with Tasks in mid-run, then every deployment restarted under load.

Also what holds for the pods as they run: Pod Security, and what an MCP server in mcp-host can not get at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripts.release import job_name
from tests.cluster.support.clusters import Cluster
from tests.cluster.support.images import OLD_VERSION, VERSION
from tests.cluster.support.load import Load
from tests.cluster.support.product import NAMESPACE, SERVICES, Product
from tests.e2e.support import manifests
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.kubectl import Kubectl
from tests.e2e.support.scripts import calls, in_turns

from kubechain_cli.scripted_llm import Reply, ScriptedServer
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
OVERLAY = ROOT / "deploy" / "kustomize" / "overlays" / "local-node"
RELEASE = ROOT / "deploy" / "release" / "latest.yaml"
POLICIES = ROOT / "deploy" / "kustomize" / "components" / "network-policy" / "policies.yaml"
PROBE = ROOT / "tests" / "e2e" / "servers" / "probe_server.py"
LOAD_NAMESPACE, PROBE_NAMESPACE, STRANGER_NAMESPACE = (
    "kubechain-test-load",
    "kubechain-test-probe",
    "kubechain-test-stranger",
)
CONNECT = "import socket; socket.create_connection(('{host}', {port}), 3); print('connected')"
ROLLOUT_SECONDS = 240.0
WAIT = ("/app/.venv/bin/python", "-c", "import signal; signal.pause()")
DONE = "done"


@pytest.fixture(scope="module")
def admin(cluster: Cluster) -> Kubectl:
    return cluster.kubectl("default")


@pytest.fixture(scope="module")
def older(cluster: Cluster, admin: Kubectl, product: Product) -> Iterator[None]:
    """The release before this one, by the overlay for a node of one's own."""
    text = product.kubectl("kustomize", str(OVERLAY)).replace(f":{VERSION}\n", f":{OLD_VERSION}\n")
    text = text.replace(job_name(VERSION), job_name(OLD_VERSION))
    assert text.count(OLD_VERSION) >= len(SERVICES)
    product.kubectl("apply", "-f", "-", input=text, timeout=120)
    product.await_available()
    yield
    if cluster.is_disposable:
        return
    for namespace in (LOAD_NAMESPACE, PROBE_NAMESPACE, STRANGER_NAMESPACE):
        admin("delete", "namespace", namespace, "--ignore-not-found", timeout=180)
    product.kubectl("delete", "-f", str(RELEASE), "--ignore-not-found", timeout=180)


@pytest.fixture(scope="module")
def load(older: None, admin: Kubectl, servers: BackgroundLoop, cluster: Cluster) -> Load:
    admin("create", "namespace", LOAD_NAMESPACE)
    load = Load(cluster.kubectl(LOAD_NAMESPACE), turns=3, parallel=2, ms=700)
    load.prepare(servers)
    return load


def versions_of(product: Product) -> set[str]:
    """Of what the pods of the services run; of each version a Job is kept that has ended."""
    pods = product.kubectl.list("pods", "-l", f"app.kubernetes.io/component in ({','.join(SERVICES)})")
    return {container["image"].rsplit(":", 1)[1] for pod in pods for container in pod["spec"]["containers"]}


def test_an_upgrade_in_place_loses_no_task_and_repeats_no_call(load: Load, product: Product) -> None:
    assert versions_of(product) == {OLD_VERSION}
    broker = product.kubectl.get("pod", "nats-0")["metadata"]["uid"]

    def upgrade() -> None:
        product.kubectl("apply", "-k", str(OVERLAY), timeout=120)
        product.await_available()

    load.assert_done_once(load.run_during(upgrade, ROLLOUT_SECONDS))
    eventually(lambda: versions_of(product) == {VERSION}, ROLLOUT_SECONDS, what="no pod of the older release")
    # It has no disk of its own here, and would have forgotten which calls it has handed out.
    assert product.kubectl.get("pod", "nats-0")["metadata"]["uid"] == broker


def test_every_deployment_restarts_under_load_without_an_error(load: Load, product: Product) -> None:
    def restart() -> None:
        for service in SERVICES:
            product.kubectl("rollout", "restart", f"deployment/{service}")
        product.await_available()

    load.assert_done_once(load.run_during(restart, ROLLOUT_SECONDS))


def test_every_pod_is_as_pod_security_restricted_wants_it(admin: Kubectl, product: Product) -> None:
    labels = admin.get("namespace", NAMESPACE)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    # Asked of the API server again, for the pods that run: it would warn of each that is not.
    asked = admin.try_run(
        "label",
        "--dry-run=server",
        "--overwrite",
        "namespace",
        NAMESPACE,
        "pod-security.kubernetes.io/enforce-version=latest",
    )
    assert asked.returncode == 0, asked.stderr
    assert "Warning" not in asked.stderr
    for service in SERVICES:
        identity = product.kubectl("exec", f"deployment/{service}", "--", "id", "-u").strip()
        assert identity == "65532"


def test_a_server_in_mcp_host_gets_at_nothing_of_its_pod(
    load: Load, admin: Kubectl, cluster: Cluster, product: Product, servers: BackgroundLoop
) -> None:
    admin("create", "namespace", PROBE_NAMESPACE)
    kubectl = cluster.kubectl(PROBE_NAMESPACE)
    nats = product.kubectl.get("service", "nats")["spec"]["clusterIP"]
    wanted = {"paths": ["/etc/kubechain/nats/password"], "addresses": [f"{nats}:4222", f"nats.{NAMESPACE}:4222"]}
    script = in_turns(calls(("probe__facts", {}), ("probe__everything", wanted)), Reply("tried"))
    llm = servers.enter(ScriptedServer(script, servers.host))
    kubectl.apply(
        manifests.secret("openai", OPENAI_API_KEY="sk-probe"),
        manifests.llm(llm.url),
        manifests.stdio_server("probe", "python3", "-c", PROBE.read_text()),
        manifests.agent(servers=["probe"]),
    )
    kubectl.wait("agent/my-assistant", timeout=60)
    kubectl.apply(manifests.task("probing", "try it"))
    kubectl.finish("probing", timeout=60)
    results = {
        call["spec"]["toolRef"]["name"]: json.loads(call["status"]["result"])
        for call in kubectl.list("taskruntoolcall")
    }
    assert_contained(results["probe__everything"], results["probe__facts"])


def assert_contained(tried: dict[str, Any], facts: dict[str, Any]) -> None:
    for deed in ("read", "connect", "detour", "trace", "signal"):
        assert tried[deed], f"{deed} was tried"
        assert DONE not in tried[deed].values(), (deed, tried[deed])
    written = {folder for folder, outcome in tried["write"].items() if outcome == DONE}
    assert written <= {facts["environ"].get("TMPDIR", "")}, tried["write"]
    assert tried["processes"]
    assert all(seen == [] for seen in tried["processes"].values()), tried["processes"]
    names = facts["environ"]
    assert not [name for name in names if name.startswith(("KUBECHAIN_", "KUBERNETES_", "NATS_"))], sorted(names)


def test_behind_its_network_policies_it_works_and_strangers_reach_nothing(
    load: Load, admin: Kubectl, cluster: Cluster, product: Product, servers: BackgroundLoop
) -> None:
    if not cluster.enforces_policies:
        pytest.skip("whether this cluster enforces NetworkPolicies is not known")
    admin("create", "namespace", STRANGER_NAMESPACE)
    stranger = cluster.kubectl(STRANGER_NAMESPACE)
    stranger("run", "stranger", f"--image=kubechain/task-controller:{VERSION}", "--command", "--", *WAIT)
    stranger.wait("pod/stranger", timeout=60)
    doors = [("nats", 4222), ("nats", 8222), ("mcp-host", 8080), ("llm-gateway", 8080)]

    def find_open() -> list[tuple[str, int]]:
        codes = [CONNECT.format(host=f"{name}.{NAMESPACE}", port=port) for name, port in doors]
        tried = [stranger.try_run("exec", "stranger", "--", WAIT[0], "-c", code).stdout for code in codes]
        return [door for door, said in zip(doors, tried, strict=True) if "connected" in said]

    assert find_open() == doors
    product.kubectl("apply", "-f", str(POLICIES))
    eventually(lambda: find_open() == [], 30, what="every door closed")
    # Connections that are open stay so: everybody makes new ones.
    for service in SERVICES:
        product.kubectl("rollout", "restart", f"deployment/{service}")
    product.await_available()
    # The one port at which a provider may be reached.
    llm = servers.enter(ScriptedServer(in_turns(Reply("through")), servers.host, 443))
    stranger.apply(manifests.secret("openai", OPENAI_API_KEY="sk-wall"), manifests.llm(llm.url), manifests.agent())
    stranger.wait("agent/my-assistant", timeout=60)
    stranger.apply(manifests.task("walled", "are you there?"))
    assert stranger.finish("walled", timeout=60)["status"]["output"] == "through"
