"""Whether an Agent is ready: everything that its spec names must exist and be ready.

Something missing is Pending, never a final Error: whatever arrives wakes the Agent. Only what its spec itself gets
wrong is an Error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from kubechain_common.api.v1alpha1.agent import Agent, AgentStatus, ValidContactChannel, ValidMCPServer
from kubechain_common.api.v1alpha1.meta import Ref
from kubechain_task_controller.core.agent_needs import AgentNeeds, find_missing, find_spec_problem
from kubechain_task_controller.core.agent_usage import build_usage, find_currency
from kubechain_task_controller.core.plan import PlannedEvent
from kubechain_task_controller.core.spent import Spent
from kubechain_task_controller.core.sub_agents import find_missing_sub_agents, names_of_sub_agents
from kubechain_task_controller.core.tool_catalog import select_tools

VALIDATED = "All dependencies validated successfully"


@dataclass(frozen=True)
class AgentSnapshot:
    """``reachable`` are the other Agents that delegation can reach from this one, by name.

    ``spent`` is what all its Tasks used, ``spent_by_deleted`` the part of those that are gone.
    """

    needs: AgentNeeds
    now: datetime
    reachable: Mapping[str, AgentNeeds] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)
    spent_by_deleted: Spent = field(default_factory=Spent)

    @property
    def agent(self) -> Agent:
        return self.needs.agent


@dataclass(frozen=True)
class AgentPlan:
    status: AgentStatus | None = None
    events: tuple[PlannedEvent, ...] = ()


def decide_agent(snapshot: AgentSnapshot) -> AgentPlan:
    """The Agent's status, and the events that tell of a change."""
    agent = snapshot.agent
    if agent.metadata.deleting:
        return AgentPlan()
    missing = find_missing(snapshot.needs) + find_missing_sub_agents(agent, snapshot.reachable)
    status = _build_status(snapshot, missing)
    counted = _with_usage(status, snapshot)
    if status == agent.status:
        return AgentPlan(counted if counted != agent.status else None)
    events = [] if agent.status.status else [PlannedEvent("Normal", "Initializing", "Starting validation")]
    if status.status == "Error":
        events.append(PlannedEvent("Warning", "ValidationFailed", status.status_detail))
    elif missing:
        events.append(PlannedEvent("Normal", "Waiting", status.status_detail))
    else:
        events.append(PlannedEvent("Normal", "ValidationSucceeded", VALIDATED))
    return AgentPlan(counted, tuple(events))


def _build_status(snapshot: AgentSnapshot, missing: list[str]) -> AgentStatus:
    agent, needs = snapshot.agent, snapshot.needs
    generation = agent.metadata.generation
    if missing:
        wrong = bool(find_spec_problem(agent))
        status = agent.status.mark(
            "Error" if wrong else "Pending",
            "InvalidSpec" if wrong else "DependenciesNotReady",
            "; ".join(missing),
            generation=generation,
            now=snapshot.now,
        )
        return _with_valid(status, [], [], [])
    status = agent.status.mark("Ready", "ValidationSucceeded", VALIDATED, generation=generation, now=snapshot.now)
    servers = [
        ValidMCPServer(name=ref.name, tools=[t.name for t in select_tools(needs.servers[ref.name], ref.tools)])
        for ref in agent.spec.mcp_servers
    ]
    channels = [
        ValidContactChannel(name=ref.name, type=needs.channels[ref.name].spec.type)
        for ref in agent.spec.human_contact_channels
    ]
    return _with_valid(status, servers, channels, [Ref(name=name) for name in names_of_sub_agents(agent)])


def _with_usage(status: AgentStatus, snapshot: AgentSnapshot) -> AgentStatus:
    currency = find_currency(snapshot.agent, snapshot.needs.llm)
    usage, of_deleted = build_usage(snapshot.spent, currency), build_usage(snapshot.spent_by_deleted, currency)
    update: dict[str, object] = {}
    if usage != status.usage:
        update["usage"] = usage
    if of_deleted != status.usage_of_deleted:
        update["usage_of_deleted"] = of_deleted
    return status.model_copy(update=update)


def _with_valid(
    status: AgentStatus, servers: list[ValidMCPServer], channels: list[ValidContactChannel], sub_agents: list[Ref]
) -> AgentStatus:
    """An Agent that never had any gets no empty lists: they would be lines in every ``kubectl describe``."""
    update: dict[str, object] = {}
    if servers != status.valid_mcp_servers:
        update["valid_mcp_servers"] = servers
    if channels != status.valid_human_contact_channels:
        update["valid_human_contact_channels"] = channels
    if sub_agents != status.valid_sub_agents:
        update["valid_sub_agents"] = sub_agents
    return status.model_copy(update=update)
