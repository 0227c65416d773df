"""Agents that delegate to each other: who is ready, and how the word of it gets round.

The reference is the greatest fixed point, found by taking away from "all are ready" whoever can not be.
"""

from __future__ import annotations

from collections import deque
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.v1alpha1 import Agent
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.informer import Key
from kubechain_common.testing.builders import NOW, build_agent, build_contact_channel, build_llm, build_mcp_server
from kubechain_task_controller.agent_reconciler import AgentReconciler
from kubechain_task_controller.core.agent_needs import AgentNeeds
from kubechain_task_controller.core.sub_agents import find_missing_sub_agents
from kubechain_task_controller.watched import Watched

NAMES = ("a", "b", "c", "d", "e")


def build(name: str, *sub_agents: str, **spec: Any) -> Agent:
    """One whose LLM has its name."""
    named = [{"name": other} for other in sub_agents]
    return build_agent(name, ready=False, llmRef={"name": f"llm-{name}"}, subAgents=named, **spec)


def needs(agent: Agent, *, good: bool = True) -> AgentNeeds:
    return AgentNeeds(agent, build_llm(agent.spec.llm_ref.name, ready=good))


def missing(agent: Agent, *others: AgentNeeds) -> list[str]:
    return find_missing_sub_agents(agent, {other.agent.name: other for other in others})


def test_a_sub_agent_has_to_exist_and_to_have_what_it_needs() -> None:
    agent = build("a", "b")
    assert missing(agent) == ['Waiting for sub-agent "b" to exist']
    assert missing(agent, needs(build("b"), good=False)) == ['Waiting for sub-agent "b" to become ready']
    assert missing(agent, needs(build("b"))) == []


def test_what_is_missing_further_down_is_told_of_the_sub_agent_on_the_way() -> None:
    agent = build("a", "b", "x")
    waiting = missing(agent, needs(build("b", "c")), needs(build("x")))
    assert waiting == ['Waiting for sub-agent "b" to become ready']
    assert missing(agent, needs(build("b", "c")), needs(build("c")), needs(build("x"))) == []


def test_nobody_waits_for_somebody_who_only_waits_for_them() -> None:
    assert missing(build("a", "a")) == []
    assert missing(build("a", "b"), needs(build("b", "a"))) == []
    assert missing(build("a", "b"), needs(build("b", "a", "c"))) == ['Waiting for sub-agent "b" to become ready']


def test_one_that_is_being_deleted_is_not_waited_for_in_vain() -> None:
    leaving = build("b")
    leaving.metadata.deletion_timestamp = NOW
    assert missing(build("a", "b"), needs(leaving)) == ['Waiting for sub-agent "b" to become ready']


class Cluster:
    """The real informers, handlers and reconciler; a write is seen by the informers, and wakes as a watch does."""

    def __init__(self) -> None:
        self.watched = Watched.build(cast("KubeClient", None), "")
        self.queue: deque[Key] = deque()
        self.version = 1
        self.writes = 0
        self.watched.wake_agents(self.enqueue)
        self.reconciler = AgentReconciler(cast("KubeClient", self), self.watched, cast("Any", self))

    def enqueue(self, key: Key) -> None:
        if key not in self.queue:
            self.queue.append(key)

    def put(self, obj: Any) -> None:
        self.version += 1
        metadata = obj.metadata.model_copy(update={"resource_version": str(self.version)})
        new = obj.model_copy(update={"metadata": metadata})
        informers: dict[str, Any] = {
            "Agent": self.watched.agents,
            "LLM": self.watched.llms,
            "MCPServer": self.watched.servers,
            "ContactChannel": self.watched.channels,
        }
        informers[obj.crd.kind].observe(new)

    def delete_agent(self, name: str) -> None:
        self.version += 1
        informer = self.watched.agents
        informer._notify(informer._store.delete(("default", name), self.version))

    async def update_status(self, agent: Agent, status: dict[str, Any]) -> Agent:
        """What the API server answers; the informer hears of it by that."""
        self.writes += 1
        self.version += 1
        wire = agent.to_wire()
        wire["metadata"]["resourceVersion"] = str(self.version)
        wire["status"] = status
        return Agent.model_validate(wire)

    def event(self, *told: Any) -> None:
        """Events are none of this test's."""

    async def settle(self) -> None:
        steps = 0
        while self.queue:
            steps += 1
            assert steps < 1000, "the Agents wake each other for ever"
            await self.reconciler.reconcile(self.queue.popleft())

    def ready(self) -> set[str]:
        return {agent.name for agent in self.watched.agents.list() if agent.status.ready}


def reference(subs: dict[str, list[str]], good: set[str]) -> set[str]:
    ready = {name for name in subs if name in good}
    while True:
        kept = {name for name in ready if all(other in ready for other in subs[name])}
        if kept == ready:
            return ready
        ready = kept


Step = tuple[str, str, list[str]]

steps = st.lists(
    st.tuples(
        st.sampled_from(["heal", "break", "edit", "delete"]),
        st.sampled_from(NAMES),
        st.lists(st.sampled_from(NAMES), max_size=3, unique=True),
    ),
    min_size=1,
    max_size=25,
)


@given(steps)
async def test_readiness_is_the_greatest_fixed_point_after_every_change(history: list[Step]) -> None:
    """Whatever changes, the watches alone bring every Agent to where it belongs."""
    cluster = Cluster()
    subs: dict[str, list[str]] = {}
    good: set[str] = set()
    generation = 1
    for what, name, named in history:
        match what:
            case "edit":
                generation += 1
                old = cluster.watched.agents.get("default", name)
                agent = build(name, *named)
                agent.metadata.generation = generation
                cluster.put(agent.model_copy(update={"status": old.status}) if old else agent)
                subs[name] = named
            case "delete":
                cluster.delete_agent(name)
                subs.pop(name, None)
            case _:
                cluster.put(build_llm(f"llm-{name}", ready=what == "heal"))
                good = good | {name} if what == "heal" else good - {name}
        await cluster.settle()
        assert cluster.ready() == reference(subs, good)


async def test_a_whole_cycle_heals_and_degrades_by_watches_alone() -> None:
    cluster = Cluster()
    ring = list(zip(NAMES, (*NAMES[1:], NAMES[0]), strict=True))
    for name, after in ring:
        cluster.put(build_llm(f"llm-{name}"))
        cluster.put(build(name, after))
    await cluster.settle()
    assert cluster.ready() == set(NAMES)
    cluster.put(build_llm("llm-c", ready=False))
    await cluster.settle()
    assert cluster.ready() == set()
    cluster.writes = 0
    cluster.put(build_llm("llm-c"))
    await cluster.settle()
    assert cluster.ready() == set(NAMES)
    assert cluster.writes == len(NAMES), "each changes once"


async def test_a_channel_and_a_server_of_a_sub_agent_count_too() -> None:
    cluster = Cluster()
    for name in ("a", "b"):
        cluster.put(build_llm(f"llm-{name}"))
    cluster.put(build("a", "b"))
    cluster.put(build("b", humanContactChannels=[{"name": "boss"}], mcpServers=[{"name": "fetch"}]))
    await cluster.settle()
    assert cluster.ready() == set()
    cluster.put(build_mcp_server("fetch"))
    cluster.put(build_contact_channel("boss"))
    await cluster.settle()
    assert cluster.ready() == {"a", "b"}
    cluster.put(build_contact_channel("boss", ready=False))
    await cluster.settle()
    assert cluster.ready() == set()
