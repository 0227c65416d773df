"""What a platform team sets about an LLM, over several replicas of llm-gateway, measured at the provider."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.cluster import Cluster
from tests.e2e.support.kubectl import Kubectl
from tests.e2e.support.metered_llm import MeteredLLM
from tests.e2e.support.replicas import more_replicas
from tests.e2e.support.workspace import Workspace

from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

SECONDS = 60.0
REPLICAS = 3


class Place:
    """A namespace that ``REPLICAS`` gateways serve."""

    def __init__(self, workspace: Workspace, servers: BackgroundLoop, replicas: Sequence[str] = ()) -> None:
        self.workspace = workspace
        self.kubectl = workspace.kubectl
        self.replicas = replicas
        self._servers = servers

    def serve(self, **options: Any) -> MeteredLLM:
        return self._servers.enter(MeteredLLM(**options))

    def apply_llm(self, name: str, llm: MeteredLLM, *, wait: bool = True, **spec: Any) -> None:
        """Secret, LLM and Agent of one name."""
        built = manifests.llm(llm.url, name)
        built["spec"] |= spec
        self.kubectl.apply(
            manifests.secret("openai", OPENAI_API_KEY=self.workspace.key),
            built,
            manifests.agent(name, llmRef={"name": name}),
        )
        if wait:
            self.kubectl.wait(f"agent/{name}", timeout=60)

    def begin(self, agent: str, count: int) -> None:
        self.kubectl.apply(*(manifests.task(f"{agent}-{n}", f"{agent}-{n}", agent) for n in range(count)))

    def finished(self, agent: str, phase: str = "FinalAnswer") -> int:
        tasks = self.kubectl.list("task")
        return sum(
            task["spec"]["agentRef"]["name"] == agent and task.get("status", {}).get("phase") == phase for task in tasks
        )

    def wait_finished(self, agent: str, count: int, seconds: float = SECONDS) -> None:
        eventually(lambda: self.finished(agent) == count, seconds, what=f"{count} answers of {agent}", interval=0.2)


@pytest.fixture(scope="module")
def place(cluster: Cluster, servers: BackgroundLoop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    namespace = f"e2e-{uuid4().hex[:8]}"
    admin = Kubectl(cluster.kubeconfig, "default")
    admin("create", "namespace", namespace)
    logs: Path = tmp_path_factory.mktemp("replicas")
    with more_replicas(cluster, "llm-gateway", REPLICAS - 1, namespace, logs) as urls:
        yield Place(Workspace(cluster, servers, namespace), servers, urls)
    admin("delete", "namespace", namespace, "--wait=false")


def until(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    eventually(condition, seconds, what=what, interval=0.02)


def test_max_concurrency_holds_over_all_replicas_and_can_be_changed(place: Place) -> None:
    llm = place.serve(delay=1.0)
    place.apply_llm("narrow", llm, maxConcurrency=2)
    place.begin("narrow", 24)
    until(lambda: len(llm.calls) >= 2, "the first answers")
    assert llm.take_highest() == 2
    place.kubectl("patch", "llm", "narrow", "--type=merge", "-p", '{"spec": {"maxConcurrency": 4}}')
    until(lambda: llm.open == 4, "four at a time")
    place.wait_finished("narrow", 24)
    assert llm.take_highest() == 4
    assert len(llm.calls) == 24
