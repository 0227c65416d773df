"""The manifests, as kustomize renders them: what a deployment promises of every pod, in every overlay."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

# importlib mode leaves sys.path alone, so the repository's root has to be on it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts import release
from scripts.images.build import NAMES, Plan, read_nats_version, read_version
from tests.rendering import (
    COMPONENTS,
    KUSTOMIZE,
    OVERLAYS,
    Object,
    by_name,
    of_kind,
    parse,
    pod_of,
    render,
    render_edited,
)

from kubechain_common.messages.permissions import USERS
from kubechain_common.policies.rbac import NAMESPACE, SERVICES

WORKLOADS = ("Deployment", "StatefulSet", "Job")
JOB = release.job_name(read_version())
DNS = {53, 5353}
DEFAULT_DRAIN_SECONDS = 20
AUTOSCALED = {"mcp-host", "llm-gateway", "human-bridge"}
CLUSTER_SCOPED = re.compile("Cluster|Namespace|CustomResourceDefinition|AdmissionPolicy")


def env_of(pod: Object) -> dict[str, str | None]:
    return {entry["name"]: entry.get("value") for entry in pod["containers"][0].get("env", [])}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_has_everything(overlay: str) -> None:
    objects = render(f"overlays/{overlay}")
    assert set(by_name(objects, "Deployment")) == set(SERVICES)
    for kind in ("Service", "ServiceAccount", "PodDisruptionBudget"):
        assert {*SERVICES, "nats"} <= set(by_name(objects, kind)), kind
    assert set(by_name(objects, "StatefulSet")) == {"nats"}
    assert set(by_name(objects, "Job")) == {JOB}
    assert len(of_kind(objects, "CustomResourceDefinition")) == 6
    assert {"kubechain-view", "kubechain-edit", "kubechain-approver"} <= set(by_name(objects, "ClusterRole"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_lives_in_one_namespace_under_the_labels_of_the_product(overlay: str) -> None:
    for obj in render(f"overlays/{overlay}"):
        name = f"{obj['kind']} {obj['metadata']['name']}"
        if not CLUSTER_SCOPED.search(obj["kind"]):
            assert obj["metadata"]["namespace"] == NAMESPACE, name
        if obj["kind"] in WORKLOADS:
            labels = obj["spec"]["template"]["metadata"]["labels"]
            assert labels["app.kubernetes.io/part-of"] == "kubechain", name
            assert {"app.kubernetes.io/name", "app.kubernetes.io/component"} <= set(labels), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_as_the_restricted_standard_wants_it(overlay: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and a little more."""
    for obj in of_kind(render(f"overlays/{overlay}"), *WORKLOADS):
        pod, name = pod_of(obj), obj["metadata"]["name"]
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] == 65532, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        assert all({"emptyDir", "secret", "configMap"} & set(volume) for volume in pod["volumes"]), name
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["readOnlyRootFilesystem"] is True, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert all("hostPort" not in port for port in container.get("ports", [])), name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]), name
            assert re.search(r"^kubechain/[a-z-]+:\d", container["image"]), name
            assert container["imagePullPolicy"] == "IfNotPresent", name
            assert {"/tmp"} <= {mount["mountPath"] for mount in container["volumeMounts"]}, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_token_is_where_it_is_used_and_nowhere_else(overlay: str) -> None:
    objects = render(f"overlays/{overlay}")
    assert all(obj["automountServiceAccountToken"] is False for obj in of_kind(objects, "ServiceAccount"))
    mounting = {
        o["metadata"]["name"] for o in of_kind(objects, *WORKLOADS) if pod_of(o)["automountServiceAccountToken"]
    }
    assert mounting == {*SERVICES, JOB}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_service_is_told_who_it_is_and_given_time_to_drain(overlay: str) -> None:
    for name, deployment in by_name(render(f"overlays/{overlay}"), "Deployment").items():
        pod = pod_of(deployment)
        env = env_of(pod)
        assert pod["serviceAccountName"] == name == env["KUBECHAIN_NATS_USER"]
        assert {"KUBECHAIN_NAMESPACE", "KUBECHAIN_POD_NAME"} <= set(env)
        drain = float(env.get("KUBECHAIN_DRAIN_SECONDS") or DEFAULT_DRAIN_SECONDS)
        assert pod["terminationGracePeriodSeconds"] >= drain + 5, "flushing and handing over take some seconds"
        container = pod["containers"][0]
        assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        secrets = {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        assert secrets - {"nats-ca"} == {f"nats-{name}"}, "its own password and nobody else's"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_select_their_pods(overlay: str) -> None:
    objects = render(f"overlays/{overlay}")
    labels = {
        obj["metadata"]["name"]: obj["spec"]["template"]["metadata"]["labels"] for obj in of_kind(objects, *WORKLOADS)
    }
    selectors = [
        *((o["metadata"]["name"], o["spec"]["selector"]) for o in of_kind(objects, "Service")),
        *(
            (o["metadata"]["name"], o["spec"]["selector"]["matchLabels"])
            for o in of_kind(objects, "Deployment", "StatefulSet", "PodDisruptionBudget")
        ),
    ]
    for name, selector in selectors:
        chosen = {owner for owner, own in labels.items() if selector.items() <= own.items()}
        assert chosen == {name.removesuffix("-headless")}, name


@pytest.mark.parametrize("service", [*SERVICES, "nats", "bootstrap"])
def test_a_folder_is_complete_in_itself(service: str) -> None:
    objects = render(f"base/{service}")
    assert len(of_kind(objects, *WORKLOADS)) == 1
    assert all(
        obj["metadata"].get("namespace") == NAMESPACE for obj in objects if not CLUSTER_SCOPED.search(obj["kind"])
    )


def test_the_namespace_lets_in_restricted_pods_only() -> None:
    labels = by_name(render("base/namespace"), "Namespace")[NAMESPACE]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_server_of_nats_knows_every_service_and_reads_what_is_mounted() -> None:
    folder = KUSTOMIZE / "base" / "nats"
    config = (folder / "nats.conf").read_text()
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["configMapGenerator"][0]["files"]
    included = [shlex.split(line)[1] for line in config.splitlines() if line.startswith("include ")]
    assert {"nats.conf", *included} == set(listed)
    users = re.findall(r'user: "([^"]+)"', (folder / "users.conf").read_text())
    assert users == list(USERS)
    assert set(users) == set(SERVICES)


def test_production_has_three_brokers_and_two_of_each_service() -> None:
    objects = render("overlays/production")
    nats = by_name(objects, "StatefulSet")["nats"]
    assert nats["spec"]["replicas"] == 3
    assert [claim["metadata"]["name"] for claim in nats["spec"]["volumeClaimTemplates"]] == ["data"]
    assert "data" not in {volume["name"] for volume in pod_of(nats)["volumes"]}
    assert pod_of(nats)["topologySpreadConstraints"]
    for name, deployment in by_name(objects, "Deployment").items():
        assert deployment["spec"]["replicas"] == 2, name
        env = env_of(pod_of(deployment))
        assert env["KUBECHAIN_NATS_REPLICAS"] == "3"
        assert pod_of(deployment)["topologySpreadConstraints"]


def test_production_speaks_tls() -> None:
    objects = render("overlays/production")
    assert pod_of(by_name(objects, "Job")[JOB])["containers"][0]["args"] == ["--tls"]
    config = next(o for o in of_kind(objects, "ConfigMap") if o["metadata"]["name"].startswith("nats-"))["data"]
    assert "handshake_first: true" in config["tls.conf"]
    assert "verify: true" in config["cluster.conf"]
    for name, deployment in by_name(objects, "Deployment").items():
        pod = pod_of(deployment)
        env = env_of(pod)
        urls = [entry for entry in pod["containers"][0]["env"] if entry["name"] == "KUBECHAIN_NATS_URL"]
        assert urls == [{"name": "KUBECHAIN_NATS_URL", "value": "tls://nats:4222"}], name
        mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert str(Path(str(env["KUBECHAIN_NATS_CA_FILE"])).parent) in mounts


def test_no_service_has_the_key_of_the_brokers_certificate() -> None:
    for obj in of_kind(render("overlays/production"), "Deployment", "Job"):
        assert "nats-tls" not in str(pod_of(obj)["volumes"])


@pytest.mark.parametrize(("overlay", "scaler"), [("kind", "keda"), ("production", "keda"), ("production", "hpa")])
def test_an_autoscaler_on_an_overlay_owns_the_number_of_replicas(overlay: str, scaler: str) -> None:
    assert_autoscaled(render(f"overlays/{overlay}", (scaler,)))


@pytest.mark.parametrize("scaler", ["keda", "hpa"])
def test_an_autoscaler_in_an_overlay_owns_the_number_of_replicas(scaler: str) -> None:
    assert_autoscaled(render_edited("production", scaler))


def assert_autoscaled(objects: Sequence[Object]) -> None:
    scalers = of_kind(objects, "ScaledObject", "HorizontalPodAutoscaler")
    assert {s["spec"]["scaleTargetRef"]["name"] for s in scalers} == AUTOSCALED
    for name, deployment in by_name(objects, "Deployment").items():
        assert ("replicas" in deployment["spec"]) == (name not in AUTOSCALED), name


@pytest.mark.parametrize("scaled", of_kind(render("overlays/kind", ("keda",)), "ScaledObject"), ids=str)
def test_a_scaled_object_asks_for_the_backlog_of_its_own_stream(scaled: Object) -> None:
    service = scaled["spec"]["scaleTargetRef"]["name"]
    (trigger,) = scaled["spec"]["triggers"]
    stream = re.search(r'stream="([A-Z_]+)"', trigger["metadata"]["query"])
    assert stream
    assert stream[1] in {spec.name for spec in USERS[service].takes}
    assert trigger["type"] == "prometheus"
    assert scaled["spec"]["fallback"]["replicas"] >= scaled["spec"]["minReplicaCount"]


def test_all_components_fit_together() -> None:
    chosen = tuple(name for name in COMPONENTS if name != "hpa")
    assert {"ScaledObject", "NetworkPolicy", "PrometheusRule", "ServiceMonitor"} <= {
        obj["kind"] for obj in render("overlays/kind", chosen)
    }


def test_traces_go_where_the_component_says() -> None:
    objects = render("overlays/kind", ("otel",))
    name = next(n for n in by_name(objects, "ConfigMap") if n.startswith("kubechain-otel"))
    for deployment in of_kind(objects, "Deployment"):
        assert pod_of(deployment)["containers"][0]["envFrom"] == [{"configMapRef": {"name": name}}]


def test_secrets_can_be_given_namespace_by_namespace() -> None:
    bindings = set(by_name(render("overlays/kind"), "ClusterRoleBinding"))
    left = set(by_name(render("overlays/kind", ("secrets-by-namespace",)), "ClusterRoleBinding"))
    readers = ("llm-gateway", "mcp-host", "human-bridge")
    assert bindings - left == {f"kubechain-{service}-secrets" for service in readers}


def find_policies(policies: list[Object], service: str) -> list[Object]:
    """Those that are about a service's pods."""
    return [p for p in policies if matches(p["spec"]["podSelector"], {"app.kubernetes.io/name": service})]


def matches(selector: Object, labels: dict[str, str]) -> bool:
    for expression in selector.get("matchExpressions", []):
        present = labels.get(expression["key"]) in expression["values"]
        if present != (expression["operator"] == "In"):
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def test_policies_let_through_what_the_services_need_and_little_else() -> None:
    policies = of_kind(render("overlays/production"), "NetworkPolicy")
    denied = [p for p in policies if p["spec"]["podSelector"] == {} and "egress" not in p["spec"]]
    assert [p["spec"]["policyTypes"] for p in denied] == [["Ingress", "Egress"]], "what is not allowed is denied"

    def reaches(service: str, direction: str) -> dict[int, list[Any]]:
        peer = {"egress": "to", "ingress": "from"}[direction]
        rules = [rule for p in find_policies(policies, service) for rule in p["spec"].get(direction, [])]
        return {port["port"]: rule.get(peer, ["anywhere"]) for rule in rules for port in rule["ports"]}

    for service in SERVICES:
        assert {*DNS, 443, 6443, 4222} <= set(reaches(service, "egress"))
        assert reaches(service, "egress")[4222] == [
            {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "nats"}}}
        ]
    assert set(reaches("nats", "egress")) == {*DNS, 6222}
    assert set(reaches("nats", "ingress")) == {4222, 6222, 8222}
    assert "anywhere" not in str(reaches("nats", "ingress"))
    assert set(reaches("bootstrap", "egress")) == {*DNS, 443, 6443}
    assert set(reaches("human-bridge", "ingress")) == {8080, 8090}
    assert all(set(reaches(s, "ingress")) == {8080} for s in SERVICES if s != "human-bridge")
    tools = next(p for p in policies if p["metadata"]["name"] == "mcp-host")["spec"]["egress"][0]["to"]
    blocks = [peer["ipBlock"] for peer in tools if "ipBlock" in peer]
    assert ["except" in block for block in blocks] == [True, True], "the clouds' metadata servers, by IPv4 and by IPv6"
    assert [peer for peer in tools if "ipBlock" not in peer] == [{"namespaceSelector": {}}]


def test_the_release_is_what_the_base_is_in_the_version_of_the_workspace() -> None:
    plan = Plan(read_version())
    images = {pod_of(o)["containers"][0]["image"] for o in of_kind(render("base"), *WORKLOADS)}
    assert images == {plan.tag(name) for name in NAMES}
    whole = list(parse((release.RELEASE / "latest.yaml").read_text()))
    assert whole == render("base")
    kinds = [obj["kind"] for obj in whole]
    assert kinds[:7] == ["Namespace", *["CustomResourceDefinition"] * 6], "what others need comes first"
    crds = (release.RELEASE / "latest-crds.yaml").read_text()
    assert (release.RELEASE / "latest-crd.yaml").read_text() == crds
    assert {o["kind"] for o in parse(crds)} == {"CustomResourceDefinition"}


def test_another_release_changes_the_images_and_the_name_of_the_job_and_nothing_else() -> None:
    files = release.build_files("9.9.9", "registry.example/team")
    assert set(files) == {"latest.yaml", "v9.9.9.yaml", "latest-crds.yaml", "v9.9.9-crds.yaml", "latest-crd.yaml"}
    whole = list(parse(files["latest.yaml"]))
    images = {pod_of(o)["containers"][0]["image"] for o in of_kind(whole, *WORKLOADS)}
    tags = {**dict.fromkeys(SERVICES, "9.9.9"), "nats": read_nats_version()}
    assert images == {f"registry.example/team/kubechain/{name}:{tag}" for name, tag in tags.items()}
    assert set(by_name(whole, "Job")) == {"kubechain-bootstrap-9-9-9"}
    back = files["latest.yaml"].replace("registry.example/team/", "").replace("9.9.9", read_version())
    back = back.replace("kubechain-bootstrap-9-9-9", JOB)
    assert back == (release.RELEASE / "latest.yaml").read_text()
