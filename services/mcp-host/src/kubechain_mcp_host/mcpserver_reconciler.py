"""Writes .status of MCPServers, in the one replica that holds the Lease: what its own connections have come to.

A server whose session is shared is connected by one replica alone, and that one writes its status.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from kubechain_common.api.v1alpha1 import ContactChannel, MCPServer
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.controller import Controller, Key, Result
from kubechain_common.kube.errors import NotFoundError
from kubechain_common.kube.event_recorder import EventRecorder
from kubechain_common.kube.informer import Change, Informer
from kubechain_common.kube.status_writer import write_status
from kubechain_common.runtime.clock import now
from kubechain_mcp_host.connections.pool import ConnectionPool
from kubechain_mcp_host.mcpserver_decision import decide_status

CONTROLLER = "mcpserver-controller"
BY_CHANNEL = "channel"
"""Index of the servers by the channel that approves their calls."""


class MCPServerReconciler:
    """``lead`` is run while this replica is the leader, ``tend`` always; a change of a server, of its connection or of
    its approval channel wakes them.
    """

    def __init__(
        self,
        kube: KubeClient,
        informer: Informer[MCPServer],
        channels: Informer[ContactChannel],
        pool: ConnectionPool,
        hosts: Callable[[MCPServer], bool],
        recorder: EventRecorder,
    ) -> None:
        """``hosts``: whether a server whose session is shared is this replica's."""
        self._kube = kube
        self._informer = informer
        self._channels = channels
        self._pool = pool
        self._recorder = recorder.for_component(CONTROLLER)
        self._hosts = hosts
        self._controllers: list[Controller] = []
        informer.add_handler(self._handle_change)
        channels.add_handler(self._handle_channel)
        pool.add_handler(self._wake)

    async def lead(self) -> None:
        """Reconciles all servers but those whose session is shared, until cancelled."""
        await self._run(Controller(CONTROLLER, self._reconcile_led, workers=4))

    async def tend(self) -> None:
        """Reconciles those that this replica hosts, until cancelled."""
        await self._run(Controller(CONTROLLER, self._reconcile_hosted, workers=1))

    async def _run(self, controller: Controller) -> None:
        self._controllers.append(controller)
        try:
            for server in self._informer.list():
                controller.queue.add(server.key)
            await controller.run()
        finally:
            self._controllers.remove(controller)

    async def _reconcile_led(self, key: Key) -> Result | None:
        server = self._informer.get(*key)
        return await self._reconcile(server) if server is not None and server.spec.session != "Shared" else None

    async def _reconcile_hosted(self, key: Key) -> Result | None:
        server = self._informer.get(*key)
        return await self._reconcile(server) if server is not None and self._hosts(server) else None

    async def _reconcile(self, server: MCPServer) -> Result | None:
        if server.metadata.deleting:
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
        for controller in self._controllers:
            controller.queue.add(key)


def channel_of(server: MCPServer) -> list[str]:
    """The indexer ``BY_CHANNEL``."""
    channel = server.spec.approval_contact_channel
    return [f"{server.namespace}/{channel.name}"] if channel is not None else []
