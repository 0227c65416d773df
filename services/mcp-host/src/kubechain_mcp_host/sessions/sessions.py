"""All that sessions need, wired together. It sleeps until there is a server that wants one."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

from kubechain_common.api.v1alpha1 import MCPServer
from kubechain_common.kube.event_recorder import EventRecorder
from kubechain_common.kube.informer import Change
from kubechain_common.messages import ToolRequest
from kubechain_common.messages.peers import SessionOwner
from kubechain_common.messaging import Bus, Delivery
from kubechain_common.runtime.pulse import Pulse
from kubechain_common.runtime.waiting import wait_any
from kubechain_common.telemetry.logging import get_logger
from kubechain_mcp_host.calls.worker import CallWorkers
from kubechain_mcp_host.connections.pool import ConnectionPool
from kubechain_mcp_host.sessions.claims import SessionClaims
from kubechain_mcp_host.sessions.events import SessionEvents
from kubechain_mcp_host.sessions.handover import HandOvers
from kubechain_mcp_host.sessions.roster import Roster
from kubechain_mcp_host.sessions.shared_sessions import SharedSessions
from kubechain_mcp_host.sessions.task_sessions import HostedSession, TaskSessions

log = get_logger(__name__)

RunCall = Callable[[Delivery[ToolRequest], HostedSession], Awaitable[None]]


class Sessions:
    """The sessions of this replica, whose Lease identity is ``pod``. ``grace`` is how many seconds running calls get
    when it stops.
    """

    def __init__(
        self,
        bus: Bus,
        pool: ConnectionPool,
        recorder: EventRecorder,
        stopping: asyncio.Event,
        *,
        pod: str,
        idle_seconds: float,
        grace: float,
    ) -> None:
        changes = Pulse()
        me = SessionOwner(pod=pod, instance=secrets.token_hex(8))
        self._bus = bus
        self._stopping = stopping
        self._grace = grace
        self._needed = asyncio.Event()
        self._roster = Roster(bus, me, changes)
        self._claims = SessionClaims(bus, self._roster, changes, self._lose)
        self.events = SessionEvents(recorder, pod)
        self.tasks = TaskSessions(bus, pool, self._claims, changes, stopping, idle_seconds=idle_seconds)
        self.shared = SharedSessions(pool, self._claims, self.events, changes, stopping)

    def handle_change(self, change: Change[MCPServer]) -> None:
        """Informer handler, to be called after that of the pool."""
        if change.obj.spec.session is not None:
            self._needed.set()
        self.tasks.handle_change(change)
        self.shared.handle_change(change)

    async def run(self, workers: CallWorkers, run_call: RunCall) -> None:
        """Runs until this replica has stopped, its calls have ended (or their grace has), and its sessions are given
        up.
        """
        await wait_any(self._needed, self._stopping)
        if not self._needed.is_set():
            return

        async def run_here(key: str, delivery: Delivery[ToolRequest]) -> bool:
            session = await self.tasks.find_hosted(key)
            if session is not None:
                await run_call(delivery, session)
            return session is not None

        handovers = HandOvers(self._bus, self._roster.me.instance, run_here)
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(run()) for run in (self._roster.run, self._claims.run, self.tasks.run, handovers.run)
            ]
            sharing = group.create_task(self.shared.run(workers))
            await self._stopping.wait()
            await self._drain()
            await asyncio.wait({sharing})
            for task in background:
                task.cancel()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self._grace):
                await self.tasks.drain()
        except TimeoutError:
            await self.tasks.give_up_all()

    def _lose(self, key: str) -> None:
        self.tasks.lose(key)
        self.shared.lose(key)
