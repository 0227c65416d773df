"""What an Agent needs, and what of it is missing: the Agent's own part, without its sub-agents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from kubechain_common.api.v1alpha1.agent import Agent
from kubechain_common.api.v1alpha1.contactchannel import ContactChannel
from kubechain_common.api.v1alpha1.llm import LLM
from kubechain_common.api.v1alpha1.mcpserver import MCPServer
from kubechain_task_controller.core.response_schema import find_schema_problem


@dataclass(frozen=True)
class AgentNeeds:
    """An Agent, with what there is of the LLM, the servers and the channels that its spec names."""

    agent: Agent
    llm: LLM | None = None
    servers: Mapping[str, MCPServer] = field(default_factory=dict)
    channels: Mapping[str, ContactChannel] = field(default_factory=dict)


def find_missing(needs: AgentNeeds) -> list[str]:
    """What the Agent waits for, a sentence each."""
    problem = find_spec_problem(needs.agent)
    return [*([problem] if problem else []), *find_absent(needs)]


def find_absent(needs: AgentNeeds) -> Iterator[str]:
    """What the spec names that is not there, or not ready, a sentence each."""
    spec = needs.agent.spec
    if needs.llm is None:
        yield f'Waiting for LLM "{spec.llm_ref.name}" to exist'
    elif not needs.llm.status.ready:
        yield f'Waiting for LLM "{spec.llm_ref.name}" to become ready'
    for reference in spec.mcp_servers:
        server = needs.servers.get(reference.name)
        if server is None:
            yield f'Waiting for MCPServer "{reference.name}" to exist'
        elif not server.status.connected:
            yield f'Waiting for MCPServer "{reference.name}" to become ready'
        else:
            yield from _missing_tools(server, reference.tools)
    for named in spec.human_contact_channels:
        channel = needs.channels.get(named.name)
        if channel is None:
            yield f'Waiting for ContactChannel "{named.name}" to exist'
        elif not channel.status.ready:
            yield f'Waiting for ContactChannel "{named.name}" to become ready'


def is_complete(needs: AgentNeeds, sub_agents: Mapping[str, Agent]) -> bool:
    """Whether all that the spec names is there and ready; of its sub-agents, that they are there."""
    return next(find_absent(needs), None) is None and all(ref.name in sub_agents for ref in needs.agent.spec.sub_agents)


def find_spec_problem(agent: Agent) -> str:
    """What is wrong with the spec itself, which only another spec heals; empty if nothing is."""
    wanted = agent.spec.response_format
    problem = find_schema_problem(wanted.json_schema) if wanted is not None else ""
    return f"responseFormat.jsonSchema can not be used: {problem}" if problem else ""


def _missing_tools(server: MCPServer, allowed: list[str] | None) -> list[str]:
    if not allowed:
        return []
    offered = {tool.name for tool in server.status.tools}
    return [f'Waiting for MCPServer "{server.name}" to offer tool "{name}"' for name in allowed if name not in offered]
