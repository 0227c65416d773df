"""Objects may be applied in any order: whatever waits goes on within a second of what it waited for.

The time is taken from the API server's answer to the create until a watch shows the effect.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.workspace import Workspace

from kubechain_cli.scripted_llm import SCRIPTS
from kubechain_common.api.v1alpha1 import LLM, Agent, MCPServer, Resource, Task
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.paths import core_path, resource_path

pytestmark = pytest.mark.e2e

LIMIT = 1.0
"""Seconds from an arrival to its effect."""
WATCH_SECONDS = 20.0

KINDS: dict[str, type[Resource]] = {kind.crd.kind: kind for kind in (LLM, Agent, MCPServer, Task)}
Check = Callable[[dict[str, Any]], bool]


class Arrivals:
    """Creates objects and times what follows."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self.figures: list[str] = []

    async def create(self, manifest: manifests.Object) -> float:
        """When the API server had it."""
        if manifest["kind"] == "Secret":
            path = core_path("secrets", self._namespace)
        else:
            path = resource_path(KINDS[manifest["kind"]], self._namespace)
        await self._kube.request("POST", path, body=manifest)
        return time.monotonic()

    async def until(self, kind: type[Resource], name: str, check: Check) -> dict[str, Any]:
        """The first status of the object that passes."""
        path, selector = resource_path(kind, self._namespace), {"fieldSelector": f"metadata.name={name}"}
        async with asyncio.timeout(WATCH_SECONDS), self._kube.watch(path, selector) as events:
            async for event in events:
                status: dict[str, Any] = event.object.get("status", {})
                if check(status):
                    return status
        raise AssertionError(f"the watch of {kind.crd.kind} {name} ended")

    async def waits(self, kind: type[Resource], name: str, words: str) -> None:
        """The object says what it waits for."""
        await self.until(kind, name, lambda status: words in status.get("statusDetail", ""))

    async def wakes(self, manifest: manifests.Object, kind: type[Resource], name: str, check: Check) -> None:
        """Creating the manifest has its effect on the other object within the limit."""
        async with asyncio.TaskGroup() as group:
            effect = group.create_task(self.until(kind, name, check))
            created = await self.create(manifest)
            await effect
            took = time.monotonic() - created
        what = f"{manifest['kind']} -> {kind.crd.kind} {name}"
        self.figures.append(f"{what}: {took * 1000:.0f} ms")
        assert took < LIMIT, f"{what} took {took:.2f} s"


def is_ready(status: dict[str, Any]) -> bool:
    return status.get("ready") is True


def is_final(status: dict[str, Any]) -> bool:
    return status.get("phase") == "FinalAnswer"


@pytest.fixture(autouse=True)
def kubeconfig(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(workspace.cluster.kubeconfig))


async def test_everything_in_the_wrong_order(workspace: Workspace) -> None:
    """Task, Agent, LLM, MCPServer, Secret: the opposite of the tutorial."""
    llm = await asyncio.to_thread(workspace.serve_llm, SCRIPTS["tutorial"])
    async with KubeClient.connect("kubechain-e2e") as kube:
        arrivals = Arrivals(kube, workspace.namespace)
        await arrivals.create(manifests.task("early", "What is the capital of the moon?"))
        await arrivals.waits(Task, "early", "Waiting for Agent to exist")
        await arrivals.wakes(
            manifests.agent(servers=["tenant"]),
            Task,
            "early",
            lambda status: 'Waiting for agent "my-assistant" to become ready' in status.get("statusDetail", ""),
        )
        await arrivals.waits(Agent, "my-assistant", 'LLM "gpt-4o" to exist')
        await arrivals.wakes(
            manifests.llm(llm.url),
            Agent,
            "my-assistant",
            lambda status: 'LLM "gpt-4o" to become ready' in status.get("statusDetail", ""),
        )
        await arrivals.waits(LLM, "gpt-4o", "openai")
        await arrivals.wakes(manifests.secret("openai", OPENAI_API_KEY=workspace.key), LLM, "gpt-4o", is_ready)
        await arrivals.waits(Agent, "my-assistant", 'MCPServer "tenant" to exist')
        environment = [manifests.from_secret("TENANT_TOKEN", "tenant", "token")]
        server = manifests.own_server("tenant", "tenant_server.py", env=environment)
        await arrivals.create(server)
        await arrivals.waits(MCPServer, "tenant", 'Secret "tenant" was not found')
        await arrivals.create(manifests.secret("tenant", token=workspace.new_secret("tenant")))
        await arrivals.until(MCPServer, "tenant", is_ready)  # starting a process is not ours to hurry
        connected = time.monotonic()
        await arrivals.until(Task, "early", is_final)
        took = time.monotonic() - connected
        arrivals.figures.append(f"MCPServer ready -> Task early final: {took * 1000:.0f} ms")
        assert took < LIMIT
    print("\n".join(arrivals.figures))


async def test_each_piece_wakes_the_one_before_it(workspace: Workspace) -> None:
    llm = await asyncio.to_thread(workspace.serve_llm, SCRIPTS["tutorial"])
    async with KubeClient.connect("kubechain-e2e") as kube:
        arrivals = Arrivals(kube, workspace.namespace)
        await arrivals.create(manifests.llm(llm.url))
        await arrivals.waits(LLM, "gpt-4o", "openai")
        await arrivals.wakes(manifests.secret("openai", OPENAI_API_KEY=workspace.key), LLM, "gpt-4o", is_ready)
        await arrivals.create(manifests.task("early", "What is the capital of the moon?"))
        await arrivals.waits(Task, "early", "Waiting for Agent to exist")
        await arrivals.wakes(manifests.agent(), Task, "early", is_final)
    print("\n".join(arrivals.figures))


async def test_an_agent_that_turns_unready_recovers_with_its_llm(workspace: Workspace) -> None:
    llm = await asyncio.to_thread(workspace.serve_llm, SCRIPTS["tutorial"])
    await asyncio.to_thread(workspace.apply_agent, llm)
    async with KubeClient.connect("kubechain-e2e") as kube:
        arrivals = Arrivals(kube, workspace.namespace)
        await asyncio.to_thread(workspace.kubectl, "delete", "llm", "gpt-4o")
        await arrivals.until(Agent, "my-assistant", lambda status: status.get("ready") is False)
        await arrivals.create(manifests.task("meanwhile", "What is the capital of the moon?"))
        await arrivals.waits(Task, "meanwhile", 'agent "my-assistant" to become ready')
        await arrivals.wakes(manifests.llm(llm.url), Task, "meanwhile", is_final)
    print("\n".join(arrivals.figures))
