"""Whether the sub-agents of an Agent are ready.

An Agent is ready if and only if it and every Agent that delegation can reach from it exist and have what they need.
This is the greatest fixed point of "I have what I need, and my sub-agents are ready": Agents that delegate to each
other, or to themselves, do not wait for one another. What counts is what an Agent has, not what its own status says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kubechain_common.api.v1alpha1.agent import Agent
from kubechain_task_controller.core.agent_needs import AgentNeeds, find_missing


def names_of_sub_agents(agent: Agent) -> list[str]:
    return [ref.name for ref in agent.spec.sub_agents]


def find_missing_sub_agents(agent: Agent, known: Mapping[str, AgentNeeds]) -> list[str]:
    """What the Agent waits for, a sentence each; ``known`` are the Agents that can be reached, by name.

    A sub-agent that only waits for this Agent is not waited for.
    """
    missing = []
    for name in names_of_sub_agents(agent):
        if name != agent.name and name not in known:
            missing.append(f'Waiting for sub-agent "{name}" to exist')
        elif not all(_has_all_it_needs(known.get(other)) for other in _reach(name, known, without=agent.name)):
            missing.append(f'Waiting for sub-agent "{name}" to become ready')
    return missing


def _has_all_it_needs(needs: AgentNeeds | None) -> bool:
    return needs is not None and not needs.agent.metadata.deleting and not find_missing(needs)


def _reach(start: str, known: Mapping[str, AgentNeeds], *, without: str) -> Iterable[str]:
    """The names that delegation reaches from ``start``, itself included, on ways that do not lead over ``without``."""
    seen, ahead = {without}, [start]
    while ahead:
        name = ahead.pop()
        if name in seen:
            continue
        seen.add(name)
        yield name
        if name in known:
            ahead += names_of_sub_agents(known[name].agent)
