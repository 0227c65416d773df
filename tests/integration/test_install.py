"""Installing and uninstalling on a real API server that has no nodes: what it takes, and what is left."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.rendering import KUBECTL, OVERLAYS, ROOT, Object, of_kind, pod_of, render

from kubechain_common.api.v1alpha1 import ALL_KINDS
from kubechain_common.api.v1alpha1.meta import GROUP
from kubechain_common.policies.rbac import NAMESPACE, SERVICES
from kubechain_common.testing.eventually import eventually

# An API server of its own, and `kubectl wait` and `delete` for everything: more than one test usually takes.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]

RELEASES = ROOT / "deploy" / "release"
RELEASE = RELEASES / "latest.yaml"
VERSION = "v0.1.0"
DOWNLOAD_SECONDS = 240
THIRD_PARTIES = {
    "github.com/kedacore/keda/v2@v2.21.0": ("config/crd/bases/keda.sh_scaledobjects.yaml",),
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """kubectl on a control plane of our own on which KubeChain was never installed."""
    state_dir = tmp_path_factory.mktemp("bare")

    def cli(*arguments: str) -> None:
        command = [sys.executable, "-m", "kubechain_cli", *arguments, "--state-dir", str(state_dir)]
        subprocess.run(command, check=True, timeout=600, capture_output=True)

    def kubectl(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [KUBECTL, "--kubeconfig", str(state_dir / "kubeconfig"), *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)

    cli("up", "--detach", "--services", "none")
    try:
        wait_until_served(kubectl)
        for folder in ("crds", "deploy/kustomize/policies"):
            done = kubectl("delete", "-k", str(ROOT / folder))
            assert done.returncode == 0, done.stderr
        kubectl("delete", "namespace", "kubechain-system")
        for kind in ("clusterrole", "clusterrolebinding"):
            kubectl("delete", kind, "-l", "app.kubernetes.io/part-of=kubechain")
        yield kubectl
    finally:
        cli("down")


def wait_until_served(kubectl: Kubectl) -> None:
    """Until every kind of ours can be listed.

    A definition that is deleted before its first list was answered keeps its finalizer until the API server looks
    again, minutes later ("could not list instances: storage is (re)initializing").
    """
    kinds = ",".join(f"{kind.crd.plural}.{GROUP}" for kind in ALL_KINDS)
    eventually(lambda: kubectl("get", kinds, "-A").returncode == 0, 60.0, what="every kind is served")


def find_ours(kubectl: Kubectl) -> set[str]:
    """Whatever there is of KubeChain outside of namespaces, and its own namespace."""
    kinds = (
        "namespace,customresourcedefinition,clusterrole,clusterrolebinding,"
        "validatingadmissionpolicy,validatingadmissionpolicybinding,"
        "mutatingadmissionpolicy,mutatingadmissionpolicybinding"
    )
    found = kubectl("get", kinds, "-o", "name")
    assert found.returncode == 0, found.stderr
    return {name for name in found.stdout.split() if "kubechain" in name}


@pytest.mark.requirement("install-definitions")
def test_the_definitions_are_installed_by_themselves(bare: Kubectl) -> None:
    assert find_ours(bare) == set()
    definitions = str(RELEASES / "latest-crds.yaml")
    applied = bare("apply", "-f", definitions)
    assert applied.returncode == 0, applied.stderr
    assert find_ours(bare) == {
        f"customresourcedefinition.apiextensions.k8s.io/{kind.crd.plural}.{GROUP}" for kind in ALL_KINDS
    }
    assert bare("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s").returncode == 0
    wait_until_served(bare)
    deleted = bare("delete", "--ignore-not-found", "-f", definitions)
    assert deleted.returncode == 0, deleted.stderr
    assert find_ours(bare) == set()


@pytest.mark.requirement("install-latest", "install-version", "cleanup-definitions")
def test_one_file_installs_everything_and_takes_it_away_again(bare: Kubectl) -> None:
    assert find_ours(bare) == set()
    applied = bare("apply", "-f", str(RELEASE))
    assert applied.returncode == 0, applied.stderr
    assert bare("apply", "-f", str(RELEASE)).returncode == 0, "again, as in an upgrade"
    version = bare("apply", "-f", str(RELEASES / f"{VERSION}.yaml"))
    assert version.returncode == 0, version.stderr
    assert {image for name, image in read_images(bare).items() if name != "nats"} == {
        f"kubechain/{service}:{VERSION.removeprefix('v')}" for service in SERVICES
    }
    make_something(bare)
    wait_until_served(bare)
    deleted = bare("delete", "--ignore-not-found", "-f", str(RELEASE))
    assert deleted.returncode == 0, deleted.stderr
    assert find_ours(bare) == set()
    eventually(lambda: not of_a_task(bare), 60.0, what="the texts of Tasks are gone with them")


def read_images(kubectl: Kubectl) -> dict[str, str]:
    """The image of each Deployment and StatefulSet of KubeChain."""
    found = kubectl("-n", NAMESPACE, "get", "deployment,statefulset", "-o", "json")
    assert found.returncode == 0, found.stderr
    return {obj["metadata"]["name"]: pod_of(obj)["containers"][0]["image"] for obj in json.loads(found.stdout)["items"]}


def make_something(kubectl: Kubectl) -> None:
    """A Task with a text of its own, as the services would have made them."""
    task = {
        "apiVersion": "kubechain.humanlayer.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": "hello"},
        "spec": {"agentRef": {"name": "agent"}, "userMessage": "hello"},
    }

    def create() -> Object | None:
        done = kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(task))
        return json.loads(done.stdout) if done.returncode == 0 else None

    made = eventually(create, 30.0, what="the kinds are served")
    assert made is not None
    owner = {"apiVersion": task["apiVersion"], "kind": "Task", "name": "hello", "uid": made["metadata"]["uid"]}
    text = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "hello-text", "labels": {"text-of": "hello"}, "ownerReferences": [owner]},
    }
    assert kubectl("create", "-f", "-", stdin=json.dumps(text)).returncode == 0


def of_a_task(kubectl: Kubectl) -> list[str]:
    return kubectl("get", "configmap", "-l", "text-of=hello", "-o", "name").stdout.split()


# --- what the API server says to every overlay ---


@pytest.fixture(scope="module")
def installed(bare: Kubectl) -> Kubectl:
    """The CRDs are there, and the namespace that a dry run cannot make."""
    for folder in ("crds", "base/namespace"):
        done = bare("apply", "--server-side", "-k", str(ROOT / "deploy" / "kustomize" / folder))
        assert done.returncode == 0, done.stderr
    return bare


def dry_run(kubectl: Kubectl, objects: list[Object]) -> subprocess.CompletedProcess[str]:
    text = yaml.dump_all(objects)
    return kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("components", [(), ("hpa", "otel")], ids=["plain", "hpa-otel"])
def test_the_api_server_takes_every_field_of_an_overlay(
    installed: Kubectl, overlay: str, components: tuple[str, ...]
) -> None:
    done = dry_run(installed, render(f"overlays/{overlay}", components))
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.timeout(DOWNLOAD_SECONDS * 2 + 60)
def test_scaled_objects_monitors_and_rules_fit_the_schemas_of_their_projects(installed: Kubectl) -> None:
    for module, files in THIRD_PARTIES.items():
        folder = download(module)
        for file in files:
            assert installed("apply", "--server-side", "-f", str(folder / file)).returncode == 0
    assert installed("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s").returncode == 0
    kinds = ("ScaledObject", "ServiceMonitor", "PrometheusRule")
    objects = of_kind(render("overlays/production", ("keda", "prometheus")), *kinds)
    assert {obj["kind"] for obj in objects} == set(kinds)

    def fit() -> bool:
        done = dry_run(installed, objects)
        assert done.returncode == 0, done.stderr
        return True

    assert eventually(fit, 30.0, what="the kinds are served, and take every field")


def download(module: str) -> Path:
    """The folder of a Go module, as the Go module proxy has it."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("needs Go to fetch the CRDs of KEDA and the Prometheus operator")
    command = [go, "mod", "download", "-json", module]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False, cwd="/")
    answer: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    if done.returncode != 0:
        pytest.skip(f"{module} can not be fetched: {answer.get('Error') or done.stderr}")
    return Path(answer["Dir"])
