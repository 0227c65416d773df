"""From a bare cluster to a final answer and back: `kubectl apply -f latest.yaml`, the tutorial's commands, and
`kubectl delete -f latest.yaml`, after which nothing is left.

The steps of the tutorial are those of tests/e2e, command by command. What is not of this cluster, the LLM, the page
that is fetched and the people, is served by the test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.cluster.support.clusters import Cluster
from tests.cluster.support.product import NAMESPACE, Product, Row, list_everything
from tests.e2e import test_seed_approval, test_seed_walkthrough
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.humanlayer import HumanLayer

from kubechain_cli.demo.page import PATH as PAGE_PATH
from kubechain_cli.demo.page import build_app as build_page
from kubechain_cli.scripted_llm import SCRIPTS, ScriptedServer
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.cluster

RELEASE = Path(__file__).resolve().parents[2] / "deploy" / "release" / "latest.yaml"
LAST_MAIL = test_seed_approval.test_a_second_mail_is_rejected_and_the_model_reads_why.__name__
SECRETS = ("openai", "anthropic", "humanlayer")
# A namespace that had pods is looked at again after half of their grace period, which is two minutes.
GONE_SECONDS = 180.0


@pytest.fixture(scope="module")
def before(cluster: Cluster) -> set[Row]:
    """What is on the bare cluster."""
    return list_everything(cluster.kubectl("default"))


@pytest.fixture(scope="module")
def people() -> HumanLayer:
    return HumanLayer()


@pytest.fixture(scope="module")
def installed(
    cluster: Cluster, product: Product, servers: BackgroundLoop, people: HumanLayer, before: set[Row]
) -> Iterator[None]:
    """KubeChain from one file; the last test removes it, and if it did not come so far, it is removed here."""
    remove_secrets = ("delete", "secret", *SECRETS, "--ignore-not-found")
    cluster.kubectl("default")(*remove_secrets)
    product.kubectl("apply", "-f", str(RELEASE), timeout=120)
    product.await_available()
    product.adjust(KUBECHAIN_BRIDGE_HUMANLAYER_URL=servers.serve(people.build_app()))
    yield
    cluster.kubectl("default")(*remove_secrets)
    product.kubectl("delete", "-f", str(RELEASE), "--ignore-not-found", timeout=GONE_SECONDS)


@pytest.fixture(scope="module")
def first_walk(installed: None, cluster: Any, servers: BackgroundLoop) -> test_seed_walkthrough.Walk:
    llm = servers.enter(ScriptedServer(SCRIPTS["tutorial"], servers.host))
    return test_seed_walkthrough.Walk(cluster.kubectl("default"), llm, servers.serve(build_page()) + PAGE_PATH, cluster)


@pytest.fixture(scope="module")
def second_walk(installed: None, cluster: Any, servers: BackgroundLoop, people: HumanLayer) -> test_seed_approval.Walk:
    llm = servers.enter(ScriptedServer(SCRIPTS["tutorial"], servers.host))
    page = servers.serve(test_seed_approval.build_page()) + test_seed_approval.PAGE
    return test_seed_approval.Walk(cluster.kubectl("default"), llm, page, cluster, people)


def steps_of(module: ModuleType, *, until: str = "") -> list[Any]:
    """The tests of the module that need nothing but its walk, in their order, up to the one of this name."""
    found: list[Callable[..., None]] = []
    for name, value in vars(module).items():
        if name.startswith("test_"):
            found.append(value)
        if name == until:
            break
    return [pytest.param(step, id=step.__name__.removeprefix("test_")) for step in found]


@pytest.mark.requirement("install-latest")
@pytest.mark.parametrize("step", steps_of(test_seed_walkthrough))
def test_first_steps(step: Callable[[Any], None], first_walk: test_seed_walkthrough.Walk) -> None:
    step(first_walk)


@pytest.mark.parametrize("step", steps_of(test_seed_approval, until=LAST_MAIL))
def test_human_approval(step: Callable[[Any], None], second_walk: test_seed_approval.Walk) -> None:
    step(second_walk)


def test_kubectl_approves(second_walk: test_seed_approval.Walk) -> None:
    name = second_walk.start("patched-task")["metadata"]["name"]
    decided = '{"spec":{"decision":{"approved":true}}}'
    second_walk.kubectl("patch", "taskruntoolcall", name, "--type=merge", "-p", decided)
    me = second_walk.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
    assert second_walk.approved("patched-task")["by"] == me


def test_remove_the_agent_the_task_and_related_resources(second_walk: test_seed_approval.Walk) -> None:
    second_walk.kubectl("create", "secret", "generic", "anthropic", "--from-literal=ANTHROPIC_API_KEY=not-used")
    for kind in ("taskruntoolcall", "task", "agent", "mcpserver", "llm"):
        second_walk.kubectl("delete", kind, "--all")
    for secret in SECRETS:
        second_walk.kubectl("delete", "secret", secret)


def test_the_last_command_leaves_nothing(cluster: Cluster, product: Product, installed: None, before: set[Row]) -> None:
    admin = cluster.kubectl("default")
    product.kubectl("delete", "-f", str(RELEASE), timeout=GONE_SECONDS)

    def is_bare() -> bool:
        left = list_everything(admin) - before
        assert not left, f"left behind: {sorted(left)}"
        return True

    eventually(is_bare, GONE_SECONDS, what="a bare cluster", interval=0.5)
    assert admin.try_run("get", "namespace", NAMESPACE).returncode != 0
