"""Carries out what ``core.agent_decision`` decides about an Agent: one status write, then its events."""

from __future__ import annotations

from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.event_recorder import EventRecorder
from kubechain_common.kube.status_writer import write_status
from kubechain_common.runtime.clock import now
from kubechain_task_controller.core.agent_decision import AgentSnapshot, decide_agent
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
        found = ((ref.name, self._watched.servers.get(agent.namespace, ref.name)) for ref in agent.spec.mcp_servers)
        snapshot = AgentSnapshot(
            agent=agent,
            now=now(),
            llm=self._watched.llms.get(agent.namespace, agent.spec.llm_ref.name),
            servers={name: server for name, server in found if server is not None},
        )
        plan = decide_agent(snapshot)
        if plan.status is not None:
            agent = await write_status(self._kube, self._watched.agents, agent, plan.status)
        for event in plan.events:
            self._recorder.event(agent, event.type, event.reason, event.message)
