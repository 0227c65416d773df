"""Which ContactChannel a waiting call is asked through: its own target, or the one that its MCPServer names."""

from __future__ import annotations

from typing import Protocol, TypeVar

from kubechain_common.api.v1alpha1 import MCPServer, TaskRunToolCall
from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.kube.errors import NotFoundError
from kubechain_human_bridge.channels.base import Kind

R = TypeVar("R", bound=Resource)


class ObjectReader(Protocol):
    """Reads from the API server, not from a cache."""

    async def get(self, kind: type[R], namespace: str, name: str) -> R: ...


def kind_of(call: TaskRunToolCall) -> Kind:
    """What a waiting call waits for."""
    return "Contact" if call.status.status == "AwaitingHumanInput" else "Approval"


class ChannelFinder:
    """Remembers MCPServers for as long as it lives, which is one look at all calls."""

    def __init__(self, kube: ObjectReader) -> None:
        self._kube = kube
        self._approvers: dict[tuple[str, str], str | None] = {}

    async def find_name(self, call: TaskRunToolCall) -> str | None:
        """The name of the call's channel; None when nobody names one. Raises KubeError."""
        target = call.spec.target
        if target is None:
            return None
        if kind_of(call) == "Contact":
            return target.name
        key = (call.namespace, target.name)
        if key not in self._approvers:
            self._approvers[key] = await self._read_approver(*key)
        return self._approvers[key]

    async def _read_approver(self, namespace: str, name: str) -> str | None:
        try:
            server = await self._kube.get(MCPServer, namespace, name)
        except NotFoundError:
            return None
        channel = server.spec.approval_contact_channel
        return channel.name if channel is not None else None
