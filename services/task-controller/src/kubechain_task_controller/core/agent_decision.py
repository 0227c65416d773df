"""Whether an Agent is ready: everything that its spec names must exist and be ready.

Something missing is Pending, never a final Error: whatever arrives wakes the Agent. Contact channels and sub-agents
can be named, but the services behind them are not part of this version, so an Agent that names them says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from kubechain_common.api.v1alpha1.agent import Agent, AgentStatus, ValidMCPServer
from kubechain_common.api.v1alpha1.llm import LLM
from kubechain_common.api.v1alpha1.mcpserver import MCPServer
from kubechain_task_controller.core.plan import PlannedEvent
from kubechain_task_controller.core.tool_catalog import select_tools

VALIDATED = "All dependencies validated successfully"


@dataclass(frozen=True)
class AgentSnapshot:
    agent: Agent
    now: datetime
    llm: LLM | None = None
    servers: Mapping[str, MCPServer] = field(default_factory=dict)


@dataclass(frozen=True)
class AgentPlan:
    status: AgentStatus | None = None
    events: tuple[PlannedEvent, ...] = ()


def decide_agent(snapshot: AgentSnapshot) -> AgentPlan:
    """The Agent's status, and the events that tell of a change."""
    agent = snapshot.agent
    if agent.metadata.deleting:
        return AgentPlan()
    problems = _problems(snapshot)
    status = _build_status(snapshot, problems)
    if status == agent.status:
        return AgentPlan()
    events = [] if agent.status.status else [PlannedEvent("Normal", "Initializing", "Starting validation")]
    if problems:
        events.append(PlannedEvent("Normal", "Waiting", status.status_detail))
    else:
        events.append(PlannedEvent("Normal", "ValidationSucceeded", VALIDATED))
    return AgentPlan(status, tuple(events))


def _build_status(snapshot: AgentSnapshot, problems: list[str]) -> AgentStatus:
    agent = snapshot.agent
    generation = agent.metadata.generation
    if problems:
        status = agent.status.mark(
            "Pending", "DependenciesNotReady", "; ".join(problems), generation=generation, now=snapshot.now
        )
        return _with_servers(status, [])
    status = agent.status.mark("Ready", "ValidationSucceeded", VALIDATED, generation=generation, now=snapshot.now)
    valid = [
        ValidMCPServer(name=ref.name, tools=[t.name for t in select_tools(snapshot.servers[ref.name], ref.tools)])
        for ref in agent.spec.mcp_servers
    ]
    return _with_servers(status, valid)


def _with_servers(status: AgentStatus, valid: list[ValidMCPServer]) -> AgentStatus:
    """An Agent that never had servers gets no empty list: it would be a line in every ``kubectl describe``."""
    if valid == status.valid_mcp_servers:
        return status
    return status.model_copy(update={"valid_mcp_servers": valid})


def _problems(snapshot: AgentSnapshot) -> list[str]:
    spec = snapshot.agent.spec
    problems = []
    if snapshot.llm is None:
        problems.append(f'Waiting for LLM "{spec.llm_ref.name}" to exist')
    elif not snapshot.llm.status.ready:
        problems.append(f'Waiting for LLM "{spec.llm_ref.name}" to become ready')
    for reference in spec.mcp_servers:
        server = snapshot.servers.get(reference.name)
        if server is None:
            problems.append(f'Waiting for MCPServer "{reference.name}" to exist')
        elif not server.status.connected:
            problems.append(f'Waiting for MCPServer "{reference.name}" to become ready')
        else:
            problems += _missing_tools(server, reference.tools)
    if spec.human_contact_channels:
        problems.append("humanContactChannels are not supported by this version: remove them from the Agent")
    if spec.sub_agents:
        problems.append("subAgents are not supported by this version: remove them from the Agent")
    return problems


def _missing_tools(server: MCPServer, allowed: list[str] | None) -> list[str]:
    offered = {tool.name for tool in server.status.tools}
    return [
        f'Waiting for MCPServer "{server.name}" to offer tool "{name}"' for name in allowed or [] if name not in offered
    ]
