"""Sessions of servers with ``session: PerTask``: one for each Task, on the replica that its first call came to.

Every replica takes calls of such a server from the stream. One whose session is another replica's is handed over to it
(``handover``); one whose session is nobody's, or that of a replica that is gone, makes it this replica's. A session
ends with its Task, when nothing was called for long, with its server, or when this replica stops and its last call has
ended; then, and only then, it is given up for others to begin anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from kubechain_common.api.v1alpha1 import MCPServer
from kubechain_common.kube.informer import Change
from kubechain_common.messages import ToolRequest
from kubechain_common.messages.topology import ANY, session_key, task_ended_subject
from kubechain_common.messaging import Bus, Delivery, MessagingError
from kubechain_common.messaging.errors import RetryLater
from kubechain_common.runtime.pulse import Pulse
from kubechain_common.runtime.waiting import run_unless, wait_any_for
from kubechain_common.telemetry.logging import get_logger
from kubechain_mcp_host.connections.connection import ServerConnection
from kubechain_mcp_host.connections.pool import ConnectionPool
from kubechain_mcp_host.metrics import SESSIONS
from kubechain_mcp_host.sessions.claims import Owner, SessionClaims
from kubechain_mcp_host.sessions.handover import HandedOver, hand_over

log = get_logger(__name__)

_RECHECK_SECONDS = 5.0
_AGAIN_SECONDS = 0.5


@dataclass(eq=False)
class HostedSession:
    """A session that this replica has. ``moved`` says that another replica had it, or that it was closed, so that its
    server has forgotten what it knew.
    """

    key: str
    connection: ServerConnection
    moved: bool
    task_uid: str = ""
    running: int = 0
    over: bool = False
    """Whether the session's Task has ended."""
    used_at: float = field(default_factory=time.monotonic)
    _met: int = 0

    def meets_new(self) -> bool:
        """Whether this call is the first in a session that began anew. Each call asks once it is connected."""
        lives = self.connection.lives
        new = (self.moved and not self._met) or bool(self._met and lives != self._met)
        self._met = lives
        return new


class TaskSessions:
    """The sessions of this replica, and the way to those of others."""

    def __init__(
        self,
        bus: Bus,
        pool: ConnectionPool,
        claims: SessionClaims,
        changes: Pulse,
        stopping: asyncio.Event,
        *,
        idle_seconds: float,
    ) -> None:
        self._bus = bus
        self._pool = pool
        self._claims = claims
        self._changes = changes
        self._stopping = stopping
        self._idle_seconds = idle_seconds
        self._hosted: dict[str, HostedSession] = {}
        self._ended: asyncio.Queue[HostedSession] = asyncio.Queue()

    async def find(self, server: MCPServer, delivery: Delivery[ToolRequest]) -> HostedSession | None:
        """The session that the call belongs to, if it is here; None once another replica has answered the call.

        Raises RetryLater (this replica stops, or the other one could not begin) and MessagingError.
        """
        key = key_of(server, delivery.message)
        while True:
            if self._stopping.is_set():
                raise RetryLater(0.0, "this replica stops")
            beat = self._changes.next
            if await self._claims.hold(key):
                return self._begin(key, server, delivery.message)
            entry = await self._claims.read(key)
            if entry.owner is not Owner.OTHER:
                if await self._claims.take(key, entry):
                    return self._begin(key, server, delivery.message, moved=entry.owner is not Owner.NOBODY)
                continue
            match await run_unless(self._stopping, hand_over(self._bus, entry.who.instance, key, delivery)):
                case HandedOver.DONE:
                    return None
                case None:
                    raise RetryLater(0.0, "this replica stops")
                case HandedOver.FAILED:
                    raise RetryLater(_AGAIN_SECONDS, "the replica that has the session could not begin")
                case HandedOver.NOBODY | HandedOver.REFUSED:
                    # It is gone, cut off, or gives the session up: one of these is heard of, or seen in time.
                    await wait_any_for(_RECHECK_SECONDS, beat)

    async def find_hosted(self, key: str) -> HostedSession | None:
        """The session for a call that another replica hands over, if it is here and goes on. Raises MessagingError."""
        if self._stopping.is_set() or not await self._claims.hold(key):
            return None
        server = self._pool.server(key.split(".")[1])
        return self._begin(key, server, None) if server is not None else None

    @asynccontextmanager
    async def use(self, session: HostedSession) -> AsyncIterator[None]:
        """Keeps the session while a call runs in it."""
        session.running += 1
        try:
            yield
        finally:
            session.running -= 1
            session.used_at = time.monotonic()
            if not session.running:
                self._handle_idle(session)

    def lose(self, key: str) -> None:
        """Ends the session here, because another replica has it now."""
        self._close(self._hosted.get(key))

    def handle_change(self, change: Change[MCPServer]) -> None:
        """Informer handler: a deleted server takes its sessions with it."""
        if change.new is None or change.new.metadata.deleting:
            for session in self._of_server(change.obj.uid):
                self._forget(session)
            self._forget_closed(change.obj.uid, ANY)

    async def run(self) -> None:
        """Ends sessions with their Tasks, and idle ones; until cancelled."""
        while True:
            try:
                async with self._bus.live.hear(task_ended_subject(ANY, ANY), self._handle_ended_task):
                    await self._close_idle()
            except MessagingError as error:
                log.debug("cannot hear of ended Tasks", error=str(error))
                await asyncio.sleep(_AGAIN_SECONDS)

    async def drain(self) -> None:
        """Gives up each session when its last call has ended, once this replica stops. Returns when none is left."""
        for session in list(self._hosted.values()):
            if not session.running:
                self._ended.put_nowait(session)
        while self._hosted:
            session = await self._ended.get()
            if self._hosted.get(session.key) is session and not session.running:
                await self._give_up(session)

    async def give_up_all(self) -> None:
        """Gives up every session, whatever runs in it."""
        for session in list(self._hosted.values()):
            await self._give_up(session)

    def _handle_idle(self, session: HostedSession) -> None:
        if session.over:
            self._forget(session)
        elif self._stopping.is_set():
            self._ended.put_nowait(session)

    def _begin(self, key: str, server: MCPServer, request: ToolRequest | None, *, moved: bool = True) -> HostedSession:
        """``moved`` is for a session that is not open: one that is ours, and was closed, is not new either."""
        session = self._hosted.get(key)
        if session is None:
            task_uid = key.split(".")[2]
            session = self._hosted[key] = HostedSession(key, self._pool.open(server), moved, task_uid)
            SESSIONS.set(len(self._hosted))
            log.info("session begins", mcp_server=server.name, namespace=server.namespace, task=task_uid, anew=moved)
        return session

    async def _give_up(self, session: HostedSession) -> None:
        self._close(session)
        try:
            await self._claims.release(session.key)
        except MessagingError as error:
            log.warning("a session could not be given up; others wait for it", session=session.key, error=str(error))

    def _forget(self, session: HostedSession) -> None:
        self._close(session)
        self._claims.forget(session.key)

    def _close(self, session: HostedSession | None) -> None:
        if session is not None and self._hosted.pop(session.key, None) is not None:
            self._pool.close(session.connection)
            SESSIONS.set(len(self._hosted))

    def _of_server(self, uid: str) -> list[HostedSession]:
        return [session for session in self._hosted.values() if session.connection.server.uid == uid]

    def _handle_ended_task(self, subject: str, _: bytes) -> None:
        task_uid = subject.rpartition(".")[2]
        for session in [s for s in self._hosted.values() if s.task_uid == task_uid]:
            session.over = True
            if not session.running:
                self._handle_idle(session)
        self._forget_closed(ANY, task_uid)

    def _forget_closed(self, server_uid: str, task_uid: str) -> None:
        """Forgets sessions that were closed for being idle, and are still ours, because nobody else could begin them
        anew.
        """
        for key in self._claims.held_of(server_uid, task_uid):
            if key not in self._hosted:
                self._claims.forget(key)

    async def _close_idle(self) -> None:
        """Closes idle sessions. One that is used again after that begins anew, and says so."""
        while True:
            now = time.monotonic()
            idle = {s: s.used_at + self._idle_seconds - now for s in self._hosted.values() if not s.running}
            for session in [s for s, left in idle.items() if left <= 0]:
                log.info("idle session closed", task=session.task_uid)
                self._close(session)
            await asyncio.sleep(max(1.0, min([*idle.values(), self._idle_seconds / 2])))


def key_of(server: MCPServer, request: ToolRequest) -> str:
    """The key of the call's session. A call that was made by hand has a session of its own."""
    return session_key(server.uid, request.task.uid if request.task is not None else request.call.uid)
