"""Servers with ``session: Shared``: one replica alone connects to each, takes its calls and writes its status.

Each such server has a task here, on every replica: it waits until the session is nobody's, or that of a replica that is
gone, makes it this replica's, and keeps it until this replica stops or the session is lost. Others wait for the word
that it was given up. The replica with the fewest such servers is the quickest to take another.
"""

from __future__ import annotations

import asyncio
import random

from kubechain_common.api.v1alpha1 import MCPServer
from kubechain_common.kube.informer import Change, Key
from kubechain_common.messages.topology import session_key
from kubechain_common.messaging import MessagingError
from kubechain_common.runtime.pulse import Pulse
from kubechain_common.runtime.waiting import run_unless, wait_any, wait_any_for
from kubechain_common.telemetry.logging import get_logger
from kubechain_mcp_host.calls.worker import CallWorkers
from kubechain_mcp_host.connections.pool import ConnectionPool
from kubechain_mcp_host.connections.state import Phase
from kubechain_mcp_host.sessions.claims import Owner, SessionClaims
from kubechain_mcp_host.sessions.events import SessionEvents
from kubechain_mcp_host.sessions.task_sessions import HostedSession

log = get_logger(__name__)

_RECHECK_SECONDS = 30.0
_RETRY_SECONDS = 1.0
_SPREAD_SECONDS = 0.05
_MAX_WAIT_SECONDS = 1.0


class SharedSessions:
    """The shared sessions of this replica."""

    def __init__(
        self,
        pool: ConnectionPool,
        claims: SessionClaims,
        events: SessionEvents,
        changes: Pulse,
        stopping: asyncio.Event,
    ) -> None:
        self._pool = pool
        self._events = events
        self._claims = claims
        self._changes = changes
        self._stopping = stopping
        self._hosted: dict[str, HostedSession] = {}
        self._ends: dict[str, asyncio.Event] = {}
        self._told_lives: dict[str, int] = {}
        self._new: asyncio.Queue[MCPServer] = asyncio.Queue()
        pool.add_handler(self._handle_connection)

    def get(self, uid: str) -> HostedSession | None:
        """The session of that server, if this replica has it."""
        return self._hosted.get(uid)

    def hosts(self, server: MCPServer) -> bool:
        return server.uid in self._hosted

    def handle_change(self, change: Change[MCPServer]) -> None:
        """Informer handler."""
        server = change.new
        if server is None or server.metadata.deleting:
            end = self._ends.pop(change.obj.uid, None)
            if end is not None:
                end.set()
        elif server.spec.session == "Shared" and server.uid not in self._ends:
            self._ends[server.uid] = asyncio.Event()
            self._new.put_nowait(server)

    def lose(self, key: str) -> None:
        """Ends the session here, because another replica has it now."""
        session = self._hosted.get(key.split(".")[1])
        end = self._ends.get(session.connection.server.uid) if session is not None and session.key == key else None
        if end is not None:  # else its server was deleted, and it ends anyway
            end.set()

    async def run(self, workers: CallWorkers) -> None:
        """Runs until this replica has stopped, and every session was given up."""
        async with asyncio.TaskGroup() as group:
            starting = group.create_task(self._start_all(group, workers))
            await self._stopping.wait()
            starting.cancel()

    def _handle_connection(self, key: Key) -> None:
        """Tells of a session that began anew, once its server is connected: after that of another replica, or an
        earlier one.
        """
        session = next((s for s in self._hosted.values() if s.connection.server.key == key), None)
        if session is None or session.connection.state.phase is not Phase.CONNECTED:
            return
        server, lives = session.connection.server, session.connection.lives
        if self._told_lives.get(server.uid) != lives:
            self._told_lives[server.uid] = lives
            if session.moved or lives > 1:
                self._events.shared_began_anew(server)

    async def _start_all(self, group: asyncio.TaskGroup, workers: CallWorkers) -> None:
        while True:
            group.create_task(self._tend(await self._new.get(), workers))

    async def _tend(self, server: MCPServer, workers: CallWorkers) -> None:
        while not self._stopping.is_set() and (end := self._ends.get(server.uid)) is not None:
            try:
                moved = await run_unless(self._stopping, self._obtain(session_key(server.uid), end))
            except MessagingError as error:
                log.debug("cannot ask whose a session is", mcp_server=server.name, error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if moved is not None:
                await self._host(server, end, workers, moved=moved)

    async def _obtain(self, key: str, end: asyncio.Event) -> bool | None:
        """Returns once the session is ours: whether it was another's before. None if the server is deleted first."""
        while not end.is_set():
            beat = self._changes.next
            entry = await self._claims.read(key)
            if entry.owner is Owner.OTHER:
                await wait_any_for(_RECHECK_SECONDS, beat, end)
                continue
            await asyncio.sleep(min(_MAX_WAIT_SECONDS, _SPREAD_SECONDS * (len(self._hosted) + random.random())))
            if await self._claims.take(key, entry):
                return entry.owner is not Owner.NOBODY
        return None

    async def _host(self, server: MCPServer, end: asyncio.Event, workers: CallWorkers, *, moved: bool) -> None:
        key = session_key(server.uid)
        log.info("this replica hosts the server", mcp_server=server.name, namespace=server.namespace, anew=moved)
        self._hosted[server.uid] = HostedSession(key, self._pool.host(server), moved)
        worker = workers.host(self._pool.server(server.uid) or server)
        await wait_any(self._stopping, end)
        # Its last calls end here: the next replica is not to begin before.
        if server.uid in self._ends:
            await workers.leave(server.uid, worker)
            await self._pool.give_up(server.uid)
        del self._hosted[server.uid]
        self._told_lives.pop(server.uid, None)
        if server.uid not in self._ends:
            self._claims.forget(key)
            return
        if end.is_set():  # it was lost, and may come back
            self._ends[server.uid] = asyncio.Event()
        try:
            await self._claims.release(key)
        except MessagingError as error:
            log.warning("a session could not be given up; others wait for it", session=key, error=str(error))
