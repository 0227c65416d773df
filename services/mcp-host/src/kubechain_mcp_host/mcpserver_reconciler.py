"""Writes .status of MCPServers, in the one replica that holds the Lease: what its own connections have come to."""

from __future__ import annotations

import time

from kubechain_common.api.v1alpha1 import ContactChannel, MCPServer
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.controller import Controller, Key, Result
from kubechain_common.kube.errors import NotFoundError
from kubechain_common.kube.event_recorder import EventRecorder
from kubechain_common.kube.informer import Change, Informer
from kubechain_common.kube.status_writer import write_status
from kubechain_common.runtime.clock import now
from kubechain_mcp_host.connection_pool import ConnectionPool
from kubechain_mcp_host.mcpserver_decision import decide_status

CONTROLLER = "mcpserver-controller"
BY_CHANNEL = "channel"
"""Index of the servers by the channel that approves their calls."""


class MCPServerReconciler:
    """``lead`` is run while this replica is the leader; a change of a server, of its connection or of its approval
    channel wakes it.
    """

    def __init__(
        self,
        kube: KubeClient,
        informer: Informer[MCPServer],
        channels: Informer[ContactChannel],
        pool: ConnectionPool,
        recorder: EventRecorder,
    ) -> None:
        self._kube = kube
        self._informer = informer
        self._channels = channels
        self._pool = pool
        self._recorder = recorder.for_component(CONTROLLER)
        self._controller: Controller | None = None
        informer.add_handler(self._handle_change)
        channels.add_handler(self._handle_channel)
        pool.add_handler(self._wake)

    async def lead(self) -> None:
        """Reconciles until cancelled."""
        controller = self._controller = Controller(CONTROLLER, self.reconcile, workers=4)
        try:
            for server in self._informer.list():
                controller.queue.add(server.key)
            await controller.run()
        finally:
            self._controller = None

    async def reconcile(self, key: Key) -> Result | None:
        server = self._informer.get(*key)
        if server is None or server.metadata.deleting:
            return None
        state = self._pool.state_of(server)
        if state is None:
            return None
        plan = decide_status(
            server, state, self._find_channel(server), elapsed=time.monotonic() - state.since, now=now()
        )
        if plan.status is not None:
            try:
                await write_status(self._kube, self._informer, server, plan.status)
            except NotFoundError:
                return None
        if plan.event is not None:
            self._recorder.event(server, plan.event.type, plan.event.reason, plan.event.message)
        return None if plan.requeue_after is None else Result(plan.requeue_after)

    def _handle_change(self, change: Change[MCPServer]) -> None:
        self._wake(change.obj.key)

    def _handle_channel(self, change: Change[ContactChannel]) -> None:
        for server in self._informer.by_index(BY_CHANNEL, f"{change.obj.namespace}/{change.obj.name}"):
            self._wake(server.key)

    def _find_channel(self, server: MCPServer) -> ContactChannel | None:
        channel = server.spec.approval_contact_channel
        return self._channels.get(server.namespace, channel.name) if channel is not None else None

    def _wake(self, key: Key) -> None:
        if self._controller is not None:
            self._controller.queue.add(key)


def channel_of(server: MCPServer) -> list[str]:
    """The indexer ``BY_CHANNEL``."""
    channel = server.spec.approval_contact_channel
    return [f"{server.namespace}/{channel.name}"] if channel is not None else []
