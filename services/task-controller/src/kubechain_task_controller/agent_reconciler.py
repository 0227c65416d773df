"""Carries out what ``core.agent_decision`` decides about an Agent: one status write, then its events."""

from __future__ import annotations

from kubechain_common.api.v1alpha1 import Agent
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.event_recorder import EventRecorder
from kubechain_common.kube.status_writer import write_status
from kubechain_common.runtime.clock import now
from kubechain_task_controller.core.agent_decision import AgentSnapshot, decide_agent
from kubechain_task_controller.core.agent_needs import AgentNeeds
from kubechain_task_controller.core.agent_usage import read_usage
from kubechain_task_controller.watched import Watched


class AgentReconciler:
    def __init__(self, kube: KubeClient, watched: Watched, recorder: EventRecorder) -> None:
        self._kube = kube
        self._watched = watched
        self._recorder = recorder

    async def reconcile(self, key: tuple[str, str]) -> None:
        """Brings the Agent's status in step with what it depends on."""
        agent = self._watched.agents.get(*key)
        if agent is None:
            return
        plan = decide_agent(self._take_snapshot(agent))
        if plan.status is not None:
            agent = await write_status(self._kube, self._watched.agents, agent, plan.status)
        for event in plan.events:
            self._recorder.event(agent, event.type, event.reason, event.message)

    def _take_snapshot(self, agent: Agent) -> AgentSnapshot:
        spent = self._watched.spent_by_agent
        spent.resume(agent.key, read_usage(agent.status.usage), read_usage(agent.status.usage_of_deleted))
        return AgentSnapshot(
            self._watched.needs_of(agent),
            now(),
            self._find_reachable(agent),
            spent=spent.total(agent.key),
            spent_by_deleted=spent.carried(agent.key),
        )

    def _find_reachable(self, agent: Agent) -> dict[str, AgentNeeds]:
        """The other Agents that delegation can reach from this one, by name."""
        found: dict[str, AgentNeeds] = {}
        ahead = [agent]
        while ahead:
            for name, other in self._watched.sub_agents_of(ahead.pop()).items():
                if name not in found and name != agent.name:
                    found[name] = self._watched.needs_of(other)
                    ahead.append(other)
        return found
