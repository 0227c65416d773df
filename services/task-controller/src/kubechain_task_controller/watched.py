"""What the controllers of this service watch, and who is woken by what.

One informer per kind, shared by both reconcilers. A finished Task keeps only what its retention needs, and its calls
nothing of what was said in them, so that thousands of them cost little memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from kubechain_common.api.turn_calls import is_owner, pending_names
from kubechain_common.api.v1alpha1 import LLM, Agent, ContactChannel, MCPServer, Resource, Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.task import TERMINAL_PHASES
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.informer import Change, Informer, Key
from kubechain_common.kube.namespace import Namespace, watch_namespaces
from kubechain_common.messages import ObjectRef
from kubechain_task_controller.core.agent_needs import AgentNeeds
from kubechain_task_controller.core.agent_usage import AgentKey, count_for_agent
from kubechain_task_controller.core.namespace_budget import NamespaceBudget, read_budget
from kubechain_task_controller.core.periods import PeriodKey, count_for_periods
from kubechain_task_controller.core.sub_agents import names_of_sub_agents
from kubechain_task_controller.core.tally import Tally

Enqueue = Callable[[Key], None]

IDLE_SECONDS = 2.0
"""Seconds after which an unchanged Task or call is packed, so that one that waits costs little memory."""

BY_UID = "uid"
BY_AGENT = "agent"
BY_SOURCE = "source"
BY_LLM = "llm"
BY_SERVER = "server"
BY_CHANNEL = "channel"
BY_SUB_AGENT = "sub-agent"
BY_DELEGATING_TASK = "delegating-task"
BY_WAITING_IN = "waiting-in"


@dataclass(frozen=True)
class Watched:
    """The informers of this service, and the sums over what they hold."""

    tasks: Informer[Task]
    agents: Informer[Agent]
    llms: Informer[LLM]
    servers: Informer[MCPServer]
    channels: Informer[ContactChannel]
    calls: Informer[TaskRunToolCall]
    namespaces: Informer[Namespace]
    spent_by_agent: Tally[AgentKey] = field(default_factory=lambda: Tally(count_for_agent))
    spent_in_period: Tally[PeriodKey] = field(default_factory=lambda: Tally(count_for_periods))

    @classmethod
    def build(cls, kube: KubeClient, namespace: str) -> Watched:
        watched = cls(
            tasks=Informer(
                kube,
                Task,
                namespace=namespace,
                indexers={
                    BY_UID: _uid_of,
                    BY_AGENT: _agent_of_unfinished,
                    BY_SOURCE: _source_of_unstarted,
                    BY_WAITING_IN: _namespace_of_waiting,
                },
                transform=strip_finished,
                strip=strip_raw,
                pack_after=IDLE_SECONDS,
            ),
            agents=Informer(
                kube,
                Agent,
                namespace=namespace,
                indexers={
                    BY_LLM: _llm_of,
                    BY_SERVER: _servers_of,
                    BY_CHANNEL: _channels_of,
                    BY_SUB_AGENT: _sub_agents_of,
                },
            ),
            llms=Informer(kube, LLM, namespace=namespace),
            servers=Informer(kube, MCPServer, namespace=namespace),
            channels=Informer(kube, ContactChannel, namespace=namespace),
            calls=Informer(
                kube,
                TaskRunToolCall,
                namespace=namespace,
                indexers={BY_DELEGATING_TASK: _delegating_task_of},
                pack_after=IDLE_SECONDS,
            ),
            namespaces=watch_namespaces(kube, namespace),
        )
        watched._thin_out_calls()
        watched._count_usage()
        return watched

    def all(self) -> tuple[Informer[Any], ...]:
        return (self.tasks, self.agents, self.llms, self.servers, self.channels, self.calls, self.namespaces)

    def needs_of(self, agent: Agent) -> AgentNeeds:
        """The Agent, with what there is of what its spec names."""
        namespace, spec = agent.namespace, agent.spec
        servers = ((ref.name, self.servers.get(namespace, ref.name)) for ref in spec.mcp_servers)
        channels = ((ref.name, self.channels.get(namespace, ref.name)) for ref in spec.human_contact_channels)
        return AgentNeeds(
            agent=agent,
            llm=self.llms.get(namespace, spec.llm_ref.name),
            servers={name: server for name, server in servers if server is not None},
            channels={name: channel for name, channel in channels if channel is not None},
        )

    def budget_of(self, namespace: str) -> NamespaceBudget | None:
        """What all Tasks of the namespace may use together, if that is bounded."""
        found = self.namespaces.get("", namespace)
        return read_budget(namespace, found.metadata.annotations) if found is not None else None

    def sub_agents_of(self, agent: Agent) -> dict[str, Agent]:
        """The Agent's sub-agents that exist, by name."""
        found = ((name, self.agents.get(agent.namespace, name)) for name in names_of_sub_agents(agent))
        return {name: other for name, other in found if other is not None}

    def has(self, task: Task) -> bool:
        """Whether the very Task is still known."""
        known = self.tasks.get(*task.key)
        return known is not None and known.uid == task.uid

    def key_of_task(self, ref: ObjectRef) -> Key | None:
        """The key of the Task, by its uid; by its name when it is none of the unfinished Tasks known here."""
        by_uid = next((task.key for task in self.tasks.by_index(BY_UID, ref.uid)), None)
        return by_uid or (ref.key if ref.name else None)

    def calls_of(self, task: Task) -> dict[str, TaskRunToolCall]:
        """What the Task's next step depends on: the calls of its turn, or, once it has finished, any that is left.

        Those of a turn are found by name: a long conversation has many others.
        """
        if task.finished:
            return {call.name: call for call in self.calls.by_owner(task.uid) if not call.finished}
        found = ((name, self.calls.get(task.namespace, name)) for name in pending_names(task))
        return {name: call for name, call in found if call is not None and is_owner(task, call)}

    def tasks_to_look_at(self) -> list[Key]:
        """The Tasks that a new leader looks at: the unfinished ones, and the few finished ones that leave work."""
        unfinished, finished = [], []
        for task in self.tasks.each():
            if not task.finished:
                unfinished.append(task.key)
            elif self._leaves_work(task):
                finished.append(task.key)
        return unfinished + finished

    def _leaves_work(self, task: Task) -> bool:
        return task.spec.ttl_seconds_after_finished is not None or bool(self.calls_of(task))

    def _thin_out_calls(self) -> None:
        """The results of a Task's calls are needed until it has finished; either may be heard of first."""

        def task_changed(change: Change[Task]) -> None:
            if change.new is not None and change.new.finished:
                for call in self.calls.by_owner(change.new.uid):
                    self._thin_out(call)

        def call_changed(change: Change[TaskRunToolCall]) -> None:
            call = change.new
            owner = self.tasks.get(call.namespace, call.spec.task_run_ref.name) if call else None
            # Another Task may have had this name before.
            if call is not None and owner is not None and owner.finished and is_owner(owner, call):
                self._thin_out(call)

        self.tasks.add_handler(task_changed)
        self.calls.add_handler(call_changed)

    def _count_usage(self) -> None:
        def task_changed(change: Change[Task]) -> None:
            self.spent_by_agent.note(change.old, change.new)
            self.spent_in_period.note(change.old, change.new)

        def agent_changed(change: Change[Agent]) -> None:
            if change.new is None:  # one of its name that is made later has used nothing yet
                self.spent_by_agent.forget(change.obj.key)

        self.tasks.add_handler(task_changed)
        self.agents.add_handler(agent_changed)

    def _thin_out(self, call: TaskRunToolCall) -> None:
        if call.finished and (call.status.result or call.status.error or call.spec.arguments):
            self.calls.thin_out(_strip_call(call))

    def wake_tasks(self, enqueue: Enqueue) -> None:
        """Enqueues a Task whenever something changes that can move it on."""

        def task_changed(change: Change[Task]) -> None:
            task = change.obj
            enqueue(task.key)
            if task.finished or change.kind == "added" or change.new is None:
                _enqueue_all(enqueue, self.tasks.by_index(BY_SOURCE, _index_key(task.namespace, task.name)))

        def agent_changed(change: Change[Agent]) -> None:
            agent = change.obj
            if not _is_about_usage_only(change):
                _enqueue_all(enqueue, self.tasks.by_index(BY_AGENT, _index_key(agent.namespace, agent.name)))

        def call_changed(change: Change[TaskRunToolCall]) -> None:
            call = change.obj
            key = (call.namespace, call.spec.task_run_ref.name)
            owner = self.tasks.get(*key)
            # A finished Task has no calls under way: one that appears all the same is cancelled.
            if change.new is None or call.finished or (owner is not None and owner.finished):
                enqueue(key)

        def llm_changed(change: Change[LLM]) -> None:
            # An LLM that was made anew under its name leaves its Agents as they are, but not the requests; and a Task
            # with a budget may wait for prices.
            if change.old is None or change.new is None or change.old.spec.prices != change.new.spec.prices:
                for agent in self.agents.by_index(BY_LLM, _index_key(change.obj.namespace, change.obj.name)):
                    _enqueue_all(enqueue, self.tasks.by_index(BY_AGENT, _index_key(agent.namespace, agent.name)))

        def namespace_changed(change: Change[Namespace]) -> None:
            old, new = change.old, change.new
            if old is not None and new is not None and old.metadata.annotations != new.metadata.annotations:
                _enqueue_all(enqueue, self.tasks.by_index(BY_WAITING_IN, new.name))

        self.tasks.add_handler(task_changed)
        self.namespaces.add_handler(namespace_changed)
        self.llms.add_handler(llm_changed)
        self.agents.add_handler(agent_changed)
        self.calls.add_handler(call_changed)

    def wake_for_usage(self, enqueue: Enqueue) -> None:
        """Enqueues the Agent of every Task that ends or is deleted, so that the sums of its usage are written down."""

        def task_changed(change: Change[Task]) -> None:
            task, old = change.obj, change.old
            ends = task.finished and (old is None or not old.finished)
            if ends or change.new is None:
                enqueue((task.namespace, task.spec.agent_ref.name))

        self.tasks.add_handler(task_changed)

    def wake_agents(self, enqueue: Enqueue) -> None:
        """Enqueues an Agent whenever something changes that can make it ready or unready.

        From a sub-agent the word goes on from status to status: one that turns ready or unready changes its status,
        which wakes those that delegate to it, and so all the way round a cycle.
        """

        def agent_changed(change: Change[Agent]) -> None:
            agent = change.obj
            if _is_about_usage_only(change):
                return
            enqueue(agent.key)
            _enqueue_all(enqueue, self.agents.by_index(BY_SUB_AGENT, _index_key(agent.namespace, agent.name)))

        def llm_changed(change: Change[LLM]) -> None:
            llm = change.obj
            _enqueue_all(enqueue, self.agents.by_index(BY_LLM, _index_key(llm.namespace, llm.name)))

        def server_changed(change: Change[MCPServer]) -> None:
            server = change.obj
            _enqueue_all(enqueue, self.agents.by_index(BY_SERVER, _index_key(server.namespace, server.name)))

        def channel_changed(change: Change[ContactChannel]) -> None:
            channel = change.obj
            _enqueue_all(enqueue, self.agents.by_index(BY_CHANNEL, _index_key(channel.namespace, channel.name)))

        self.agents.add_handler(agent_changed)
        self.llms.add_handler(llm_changed)
        self.servers.add_handler(server_changed)
        self.channels.add_handler(channel_changed)


def _enqueue_all(enqueue: Enqueue, objects: Iterable[Resource]) -> None:
    for obj in objects:
        enqueue(obj.key)


def _is_about_usage_only(change: Change[Agent]) -> bool:
    """Whether nothing differs that anybody else acts upon: with many Tasks it would wake them all every few seconds."""
    old, new = change.old, change.new
    if old is None or new is None or change.kind != "modified":
        return False
    nothing = {"usage": None, "usage_of_deleted": None}
    return (
        old.metadata.generation == new.metadata.generation
        and old.metadata.deleting == new.metadata.deleting
        and old.status != new.status
        and old.status.model_copy(update=nothing) == new.status.model_copy(update=nothing)
    )


def _index_key(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"


def _uid_of(task: Task) -> list[str]:
    return [] if task.finished else [task.uid]


def _agent_of_unfinished(task: Task) -> list[str]:
    return [] if task.finished else [_index_key(task.namespace, task.spec.agent_ref.name)]


def _source_of_unstarted(task: Task) -> list[str]:
    origin = task.spec.context_window_from
    if origin is None or task.status.turn > 0:
        return []
    return [_index_key(task.namespace, origin.task_ref.name)]


def _namespace_of_waiting(task: Task) -> list[str]:
    return [task.namespace] if task.status.status == "Pending" and not task.finished else []


def _llm_of(agent: Agent) -> list[str]:
    return [_index_key(agent.namespace, agent.spec.llm_ref.name)]


def _servers_of(agent: Agent) -> list[str]:
    return [_index_key(agent.namespace, ref.name) for ref in agent.spec.mcp_servers]


def _channels_of(agent: Agent) -> list[str]:
    return [_index_key(agent.namespace, ref.name) for ref in agent.spec.human_contact_channels]


def _sub_agents_of(agent: Agent) -> list[str]:
    return [_index_key(agent.namespace, name) for name in names_of_sub_agents(agent)]


def _delegating_task_of(call: TaskRunToolCall) -> list[str]:
    if call.spec.tool_type != "DelegateToAgent":
        return []
    return [owner.uid for owner in call.metadata.owner_references]


def _strip_call(call: TaskRunToolCall) -> TaskRunToolCall:
    spec = call.spec.model_copy(update={"arguments": ""})
    return call.model_copy(update={"spec": spec, "status": call.status.model_copy(update={"result": "", "error": ""})})


def strip_finished(task: Task) -> Task:
    """What is kept of a Task once it has finished."""
    if not task.finished:
        return task
    spec = task.spec.model_copy(update={"user_message": None, "context_window": None})
    status = task.status.model_copy(update={"context_window": [], "output": ""})
    return task.model_copy(update={"spec": spec, "status": status})


def strip_raw(raw: dict[str, Any]) -> None:
    """Drops the same before validation, which would cost more than that of the rest of a finished Task."""
    status = raw.get("status") or {}
    if status.get("phase") in TERMINAL_PHASES:
        raw["spec"] = {k: v for k, v in raw["spec"].items() if k not in ("userMessage", "contextWindow")}
        raw["status"] = {k: v for k, v in status.items() if k not in ("contextWindow", "output")}
