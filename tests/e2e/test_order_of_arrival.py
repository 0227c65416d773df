"""Objects may be applied in any order: whatever waits goes on within a second of what it waited for.

The time is taken from the API server's answer to the create until a watch shows the effect. A machine that stands still
makes something late now and then, a defect each time: what was late is tried again, in a new namespace.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.cluster import Cluster
from tests.e2e.support.workspace import Workspace

from kubechain_cli.scripted_llm import SCRIPTS
from kubechain_common.api.v1alpha1 import LLM, Agent, MCPServer, Resource, Task
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.paths import core_path, resource_path

pytestmark = pytest.mark.e2e

LIMIT = 1.0
"""Seconds from an arrival to its effect."""
WATCH_SECONDS = 20.0
ATTEMPTS = 3

KINDS: dict[str, type[Resource]] = {kind.crd.kind: kind for kind in (LLM, Agent, MCPServer, Task)}
Check = Callable[[dict[str, Any]], bool]


class Arrivals:
    """Creates objects and times what follows: ``took`` is in seconds."""

    def __init__(self, kube: KubeClient, workspace: Workspace) -> None:
        self._kube = kube
        self._namespace = workspace.namespace
        self.workspace = workspace
        self.took: dict[str, float] = {}

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
        """Times the effect that creating the manifest has on the other object."""
        async with asyncio.TaskGroup() as group:
            effect = group.create_task(self.until(kind, name, check))
            created = await self.create(manifest)
            await effect
            self.took[f"{manifest['kind']} -> {kind.crd.kind} {name}"] = time.monotonic() - created


def is_ready(status: dict[str, Any]) -> bool:
    return status.get("ready") is True


def is_final(status: dict[str, Any]) -> bool:
    return status.get("phase") == "FinalAnswer"


NewArrivals = Callable[[], Iterator[Arrivals]]


@pytest.fixture
async def attempts(
    cluster: Cluster, new_workspace: Callable[[], Workspace], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[NewArrivals]:
    """Goes on until each effect came within the limit once, and fails if one never did."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    async with KubeClient.connect("kubechain-e2e") as kube:

        def attempt() -> Iterator[Arrivals]:
            late: set[str] | None = None
            for _ in range(ATTEMPTS):
                arrivals = Arrivals(kube, new_workspace())
                yield arrivals
                print("\n".join(f"{what}: {took * 1000:.0f} ms" for what, took in arrivals.took.items()))
                late_now = {what for what, took in arrivals.took.items() if took >= LIMIT}
                late = late_now if late is None else late & late_now
                if not late:
                    return
            raise AssertionError(f"{sorted(late or ())} took {LIMIT} s and more, {ATTEMPTS} times")

        yield attempt


async def test_everything_in_the_wrong_order(attempts: NewArrivals) -> None:
    """Task, Agent, LLM, MCPServer, Secret: the opposite of the tutorial."""
    for arrivals in attempts():
        workspace = arrivals.workspace
        llm = await asyncio.to_thread(workspace.serve_llm, SCRIPTS["tutorial"])
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
        arrivals.took["MCPServer ready -> Task early final"] = time.monotonic() - connected


async def test_each_piece_wakes_the_one_before_it(attempts: NewArrivals) -> None:
    for arrivals in attempts():
        workspace = arrivals.workspace
        llm = await asyncio.to_thread(workspace.serve_llm, SCRIPTS["tutorial"])
        await arrivals.create(manifests.llm(llm.url))
        await arrivals.waits(LLM, "gpt-4o", "openai")
        await arrivals.wakes(manifests.secret("openai", OPENAI_API_KEY=workspace.key), LLM, "gpt-4o", is_ready)
        await arrivals.create(manifests.task("early", "What is the capital of the moon?"))
        await arrivals.waits(Task, "early", "Waiting for Agent to exist")
        await arrivals.wakes(manifests.agent(), Task, "early", is_final)


async def test_an_agent_that_turns_unready_recovers_with_its_llm(attempts: NewArrivals) -> None:
    for arrivals in attempts():
        workspace = arrivals.workspace
        llm = await asyncio.to_thread(workspace.serve_llm, SCRIPTS["tutorial"])
        await asyncio.to_thread(workspace.apply_agent, llm)
        await asyncio.to_thread(workspace.kubectl, "delete", "llm", "gpt-4o")
        await arrivals.until(Agent, "my-assistant", lambda status: status.get("ready") is False)
        await arrivals.create(manifests.task("meanwhile", "What is the capital of the moon?"))
        await arrivals.waits(Task, "meanwhile", 'agent "my-assistant" to become ready')
        await arrivals.wakes(manifests.llm(llm.url), Task, "meanwhile", is_final)
