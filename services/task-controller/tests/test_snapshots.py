"""Of which moment a snapshot is."""

from __future__ import annotations

from typing import Any, cast

from kubechain_common.kube.namespace import Namespace
from kubechain_common.testing.builders import (
    build_agent,
    build_contact_channel,
    build_llm,
    build_mcp_server,
    build_task,
)
from kubechain_task_controller.core.namespace_budget import TOKENS, NamespaceBudget
from kubechain_task_controller.core.spent import Spent
from kubechain_task_controller.snapshots import Snapshots
from kubechain_task_controller.watched import Watched

AGENT = build_agent(
    mcpServers=[{"name": "fetch"}], humanContactChannels=[{"name": "boss"}], subAgents=[{"name": "helper"}]
)
NAMESPACE = {"metadata": {"name": "default", "annotations": {TOKENS: "1000"}, "resourceVersion": "1"}, "spec": {}}


class Book:
    """While it is read, all that the Agent waits for comes."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    async def find_spent(self, budget: NamespaceBudget) -> Spent:
        self._watched.servers.observe(build_mcp_server())
        self._watched.channels.observe(build_contact_channel("boss"))
        self._watched.agents.observe(build_agent("helper"))
        return Spent()


async def test_what_an_agent_has_and_what_its_tools_are_is_of_one_moment() -> None:
    watched, task = Watched.build(cast("Any", None), ""), build_task()
    watched.namespaces.observe(Namespace.model_validate(NAMESPACE))
    watched.agents.observe(AGENT)
    watched.llms.observe(build_llm())
    snapshots = Snapshots(cast("Any", None), watched, cast("Any", _Dispatcher()), cast("Any", Book(watched)))
    snapshot = await snapshots.take(task, None, {})
    assert snapshot.agent_complete
    names = [definition.name for definition in snapshot.catalog.definitions()]
    assert names == ["fetch__fetch", "boss__human_contact_inbox", "delegate_to_agent__helper"]


class _Dispatcher:
    def subject_of(self, unit: str) -> None:
        """Nothing was asked for."""
