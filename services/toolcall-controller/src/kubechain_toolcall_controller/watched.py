"""What this service watches, and which calls a change wakes.

A finished call is kept without its result, which may be large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kubechain_common.api.v1alpha1 import MCPServer, TaskRunToolCall
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.informer import Change, Informer, Key
from kubechain_common.messages import ObjectRef

BY_UID = "uid"
BY_SERVER = "server"


@dataclass(frozen=True)
class Watched:
    """The informers of this service."""

    calls: Informer[TaskRunToolCall]
    servers: Informer[MCPServer]

    @classmethod
    def build(cls, kube: KubeClient, namespace: str) -> Watched:
        calls = Informer(
            kube,
            TaskRunToolCall,
            namespace=namespace,
            indexers={BY_UID: _uid_of_unfinished, BY_SERVER: _server_of_unfinished},
            transform=_strip_finished,
        )
        return cls(calls=calls, servers=Informer(kube, MCPServer, namespace=namespace, transform=_strip_tools))

    def all(self) -> tuple[Informer[TaskRunToolCall], Informer[MCPServer]]:
        return (self.calls, self.servers)

    def key_of_call(self, ref: ObjectRef) -> Key | None:
        """The key of the call, by its uid; by its name when it is none of the unfinished calls known here."""
        by_uid = next((call.key for call in self.calls.by_index(BY_UID, ref.uid)), None)
        return by_uid or (ref.key if ref.name else None)

    def wake_calls(self, enqueue: Callable[[Key], None]) -> None:
        """A change of a call, or of the server that it waits for, enqueues it."""

        def call_changed(change: Change[TaskRunToolCall]) -> None:
            if change.new is None or not change.obj.finished:
                enqueue(change.obj.key)

        def server_changed(change: Change[MCPServer]) -> None:
            for call in self.calls.by_index(BY_SERVER, f"{change.obj.namespace}/{change.obj.name}"):
                enqueue(call.key)

        self.calls.add_handler(call_changed)
        self.servers.add_handler(server_changed)


def _uid_of_unfinished(call: TaskRunToolCall) -> list[str]:
    return [] if call.finished else [call.uid]


def _server_of_unfinished(call: TaskRunToolCall) -> list[str]:
    target = call.spec.target
    if call.finished or call.spec.tool_type != "MCP" or target is None:
        return []
    return [f"{call.namespace}/{target.name}"]


def _strip_finished(call: TaskRunToolCall) -> TaskRunToolCall:
    if not call.finished:
        return call
    spec = call.spec.model_copy(update={"arguments": ""})
    return call.model_copy(update={"spec": spec, "status": call.status.model_copy(update={"result": "", "error": ""})})


def _strip_tools(server: MCPServer) -> MCPServer:
    return server.model_copy(update={"status": server.status.model_copy(update={"tools": []})})
