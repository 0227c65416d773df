"""What this service watches, and which calls a change wakes.

A finished call is kept without its texts, which may be large, as is the Task of a sub-agent, and a server with no more
of its tools than the approval policy looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kubechain_common.api.names import LABEL_PARENT_CALL_UID
from kubechain_common.api.v1alpha1 import ContactChannel, MCPServer, Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.mcpserver import MCPTool
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.informer import Change, Informer, Key
from kubechain_common.messages import ObjectRef
from kubechain_toolcall_controller.core.asking import is_waiting

IDLE_SECONDS = 2.0
"""Seconds after which an unchanged call is packed, so that one that waits costs little memory."""

BY_UID = "uid"
BY_SERVER = "server"
BY_CHANNEL = "channel"


@dataclass(frozen=True)
class Watched:
    """The informers of this service."""

    calls: Informer[TaskRunToolCall]
    servers: Informer[MCPServer]
    channels: Informer[ContactChannel]
    sub_tasks: Informer[Task]

    @classmethod
    def build(cls, kube: KubeClient, namespace: str) -> Watched:
        calls = Informer(
            kube,
            TaskRunToolCall,
            namespace=namespace,
            indexers={BY_UID: _uid_of_unfinished, BY_SERVER: _server_of_unfinished, BY_CHANNEL: _channel_of_question},
            transform=_strip_finished,
            pack_after=IDLE_SECONDS,
        )
        servers = Informer(
            kube,
            MCPServer,
            namespace=namespace,
            indexers={BY_CHANNEL: _channel_of_server},
            transform=_strip_tools,
        )
        sub_tasks = Informer(
            kube,
            Task,
            namespace=namespace,
            label_selector=LABEL_PARENT_CALL_UID,
            transform=_strip_texts,
            strip=_strip_raw_texts,
        )
        channels = Informer(kube, ContactChannel, namespace=namespace)
        return cls(calls=calls, servers=servers, channels=channels, sub_tasks=sub_tasks)

    def all(self) -> tuple[Informer[Any], ...]:
        return (self.calls, self.servers, self.channels, self.sub_tasks)

    def server_of(self, call: TaskRunToolCall) -> MCPServer | None:
        """The MCPServer that the call is for, if it exists."""
        target = call.spec.target
        if call.spec.tool_type != "MCP" or target is None:
            return None
        return self.servers.get(call.namespace, target.name)

    def channel_of(self, call: TaskRunToolCall, server: MCPServer | None) -> ContactChannel | None:
        """The ContactChannel through which somebody is asked about the call, or asked by it, if it exists."""
        if call.spec.tool_type == "HumanContact" and call.spec.target is not None:
            return self.channels.get(call.namespace, call.spec.target.name)
        channel = server.spec.approval_contact_channel if server is not None else None
        return self.channels.get(call.namespace, channel.name) if channel is not None else None

    def key_of_call(self, ref: ObjectRef) -> Key | None:
        """The key of the call, by its uid; by its name when it is none of the unfinished calls known here."""
        by_uid = next((call.key for call in self.calls.by_index(BY_UID, ref.uid)), None)
        return by_uid or (ref.key if ref.name else None)

    def wake_calls(self, enqueue: Callable[[Key], None]) -> None:
        """Enqueues a call whenever it changes, or what it waits for does (server, channel, a sub-agent's Task)."""

        def call_changed(change: Change[TaskRunToolCall]) -> None:
            if change.new is None or not change.obj.finished:
                enqueue(change.obj.key)

        def server_changed(change: Change[MCPServer]) -> None:
            for call in self.calls.by_index(BY_SERVER, f"{change.obj.namespace}/{change.obj.name}"):
                enqueue(call.key)

        def sub_task_changed(change: Change[Task]) -> None:
            if change.kind == "modified" and _shown(change.old) == _shown(change.new):
                return  # a turn more
            for owner in change.obj.metadata.owner_references:
                call = self.calls.get(change.obj.namespace, owner.name)
                if call is None or not call.finished:
                    enqueue((change.obj.namespace, owner.name))

        def channel_changed(change: Change[ContactChannel]) -> None:
            old, new = change.old, change.new
            if old is not None and new is not None and old.metadata.generation == new.metadata.generation:
                return  # only its status, which is human-bridge's concern
            for call in self.waiting_for(change.obj):
                enqueue(call.key)

        self.calls.add_handler(call_changed)
        self.sub_tasks.add_handler(sub_task_changed)
        self.servers.add_handler(server_changed)
        self.channels.add_handler(channel_changed)

    def waiting_for(self, channel: ContactChannel) -> Iterator[TaskRunToolCall]:
        """The calls that wait for somebody to be asked, or to answer, through this channel."""
        name = f"{channel.namespace}/{channel.name}"
        yield from self.calls.by_index(BY_CHANNEL, name)
        for server in self.servers.by_index(BY_CHANNEL, name):
            calls = self.calls.by_index(BY_SERVER, f"{server.namespace}/{server.name}")
            yield from (call for call in calls if is_waiting(call))


def _uid_of_unfinished(call: TaskRunToolCall) -> list[str]:
    return [] if call.finished else [call.uid]


def _server_of_unfinished(call: TaskRunToolCall) -> list[str]:
    target = call.spec.target
    if call.finished or call.spec.tool_type != "MCP" or target is None:
        return []
    return [f"{call.namespace}/{target.name}"]


def _channel_of_question(call: TaskRunToolCall) -> list[str]:
    target = call.spec.target
    if call.finished or call.spec.tool_type != "HumanContact" or target is None:
        return []
    return [f"{call.namespace}/{target.name}"]


def _channel_of_server(server: MCPServer) -> list[str]:
    channel = server.spec.approval_contact_channel
    return [f"{server.namespace}/{channel.name}"] if channel is not None else []


def _strip_finished(call: TaskRunToolCall) -> TaskRunToolCall:
    if not call.finished:
        return call
    spec = call.spec.model_copy(update={"arguments": "", "decision": None, "response": None})
    return call.model_copy(update={"spec": spec, "status": call.status.model_copy(update={"result": "", "error": ""})})


def _shown(task: Task | None) -> object:
    """What a call shows of its sub-agent's Task."""
    return task and (task.finished, task.status.status == "Pending" and task.status.status_detail)


def _strip_texts(task: Task) -> Task:
    spec = task.spec.model_copy(update={"user_message": None, "context_window": None})
    status = task.status.model_copy(update={"context_window": [], "output": "", "error": "", "user_msg_preview": ""})
    return task.model_copy(update={"spec": spec, "status": status})


def _strip_raw_texts(raw: dict[str, Any]) -> None:
    """Drops the texts before validation, which would cost more than that of all the rest."""
    raw["spec"] = {k: v for k, v in raw["spec"].items() if k not in ("userMessage", "contextWindow")}
    raw["status"] = {
        k: v
        for k, v in (raw.get("status") or {}).items()
        if k not in ("contextWindow", "output", "error", "userMsgPreview")
    }


def _strip_tools(server: MCPServer) -> MCPServer:
    policy = server.spec.approval
    tools = [MCPTool(name=tool.name, annotations=tool.annotations) for tool in server.status.tools]
    kept = tools if policy is not None and policy.skip_read_only else []
    return server.model_copy(update={"status": server.status.model_copy(update={"tools": kept})})
