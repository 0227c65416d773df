"""Whose a session is: one entry per session in the shared bucket, taken by compare-and-set.

An entry names a replica, not a deadline: one that lives keeps all of its sessions at no cost, and those of one that is
gone (``roster``) may be taken over. A replica that may have been thought gone, because it was cut off or frozen, looks
whether a session is still its own before it uses it again. The bucket drops what is not written for a day, so entries
are written anew now and then, and after a loss of the broker's storage.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from kubechain_common.messages.peers import SessionOwner
from kubechain_common.messages.topology import ANY, session_key
from kubechain_common.messaging import Bus, MessagingError
from kubechain_common.messaging.codec import decode, encode
from kubechain_common.messaging.errors import PoisonMessage
from kubechain_common.runtime.pulse import Pulse
from kubechain_common.runtime.waiting import wait_any_for
from kubechain_common.telemetry.logging import get_logger
from kubechain_mcp_host.sessions.roster import Roster

log = get_logger(__name__)

RENEW_SECONDS = 6 * 3600.0
_LOOK_SECONDS = 60.0
_RETRY_SECONDS = 1.0


class Owner(StrEnum):
    """Whose a session is, seen from here."""

    NOBODY = "Nobody"
    """The session never was anybody's."""
    VACANT = "Vacant"
    """The session was given up, or its owner is gone."""
    MINE = "Mine"
    OTHER = "Other"


@dataclass(frozen=True)
class Entry:
    """What is known of a session; ``take`` needs its ``revision``."""

    owner: Owner
    who: SessionOwner
    revision: int


@dataclass
class _Held:
    revision: int
    written_at: float
    connected_at: datetime
    """When the connection to NATS began over which the session was last seen to be ours."""


class SessionClaims:
    """The sessions that are this replica's, and the entries that say so. All methods that ask or write raise
    MessagingError. ``on_lost`` is told of a session that another one took.
    """

    def __init__(self, bus: Bus, roster: Roster, changes: Pulse, on_lost: Callable[[str], None]) -> None:
        self._bus = bus
        self._roster = roster
        self._changes = changes
        self._on_lost = on_lost
        self._held: dict[str, _Held] = {}
        self._doubtful: set[str] = set()
        self._look = asyncio.Event()

    async def read(self, key: str) -> Entry:
        found = await self._bus.shared.read(key)
        who = _decode(found.data)
        if who is None:
            return Entry(Owner.NOBODY, SessionOwner(), found.revision)
        if who.instance == self._roster.me.instance:
            return Entry(Owner.MINE, who, found.revision)
        vacant = not who.instance or self._roster.is_gone(who)
        return Entry(Owner.VACANT if vacant else Owner.OTHER, who, found.revision)

    async def take(self, key: str, entry: Entry) -> bool:
        """Make the session ours, unless somebody was faster."""
        revision = await self._write(key, self._roster.me, entry.revision)
        if revision is None:
            return False
        self._held[key] = self._note(revision)
        return True

    async def hold(self, key: str) -> bool:
        """Whether the session is ours. Costs nothing while nobody can have thought that we are gone."""
        held = self._held.get(key)
        if held is None:
            return False
        if key in self._doubtful or not self._roster.is_heard or held.connected_at != self._bus.connection.connected_at:
            return await self._check(key)
        return True

    async def release(self, key: str) -> None:
        """Give the session up, so that the next one may take it at once."""
        held = self._held.pop(key, None)
        self._doubtful.discard(key)
        if held is not None:
            await self._write(key, SessionOwner(), held.revision)

    def forget(self, key: str) -> None:
        """Drops the session, which nobody will ask for again."""
        self._held.pop(key, None)
        self._doubtful.discard(key)

    def held_of(self, server_uid: str, task_uid: str) -> list[str]:
        """The keys of those sessions of Tasks that are ours, open or not; ``ANY`` stands for every server, or Task."""
        wanted = session_key(server_uid, task_uid).split(".")
        return [key for key in self._held if _matches(key.split("."), wanted)]

    async def run(self) -> None:
        """Hears of entries that others write, and keeps our own; until cancelled."""
        unregister = (
            self._bus.on_reconnect(self._doubt_all),
            self._bus.on_topology_lost(lambda _: self._doubt_all()),
        )
        try:
            end = await self._listen()
            try:
                while True:
                    await self._keep()
            finally:
                await end()
        finally:
            for each in unregister:
                each()

    async def _listen(self) -> Callable[[], Awaitable[None]]:
        while True:
            try:
                return await self._bus.shared.listen(session_key(">"), self._hear)
            except MessagingError as error:
                log.debug("cannot hear of sessions", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)

    def _hear(self, key: str) -> None:
        if key in self._held:
            self._doubtful.add(key)
            self._look.set()
        self._changes.beat()

    def _doubt_all(self) -> None:
        self._doubtful |= self._held.keys()
        self._look.set()
        self._changes.beat()

    async def _keep(self) -> None:
        """Looks at the sessions that are in doubt, and writes the entries that are old."""
        try:
            for key in list(self._doubtful):
                await self._check(key)
            for key, held in list(self._held.items()):
                if time.monotonic() - held.written_at > RENEW_SECONDS:
                    await self._renew(key, held.revision)
            self._look.clear()
        except MessagingError as error:
            log.debug("cannot look at sessions", error=str(error))
            await asyncio.sleep(_RETRY_SECONDS)
            return
        if not self._doubtful:
            await wait_any_for(_LOOK_SECONDS, self._look)

    async def _check(self, key: str) -> bool:
        self._doubtful.discard(key)
        try:
            entry = await self.read(key)
            if key not in self._held:
                return False
            if entry.owner is Owner.NOBODY:  # the bucket was lost
                return await self._renew(key, entry.revision)
        except MessagingError:
            self._doubtful.add(key)
            raise
        if entry.owner is Owner.MINE:
            self._held[key] = self._note(entry.revision)
            return True
        self._lose(key)
        return False

    async def _renew(self, key: str, revision: int) -> bool:
        written = await self._write(key, self._roster.me, revision)
        if written is None:
            self._doubtful.add(key)
            self._look.set()
            return False
        self._held[key] = self._note(written)
        return True

    def _lose(self, key: str) -> None:
        log.warning("a session was taken by another replica", session=key)
        self._held.pop(key, None)
        self._on_lost(key)

    async def _write(self, key: str, who: SessionOwner, revision: int) -> int | None:
        written = await self._bus.shared.write(key, encode(who), revision)
        if written is not None:
            await self._bus.shared.tell(key)
        return written

    def _note(self, revision: int) -> _Held:
        return _Held(revision, time.monotonic(), self._bus.connection.connected_at)


def _matches(parts: list[str], wanted: list[str]) -> bool:
    return len(parts) == len(wanted) and all(w in (ANY, part) for part, w in zip(parts, wanted, strict=True))


def _decode(data: bytes) -> SessionOwner | None:
    if not data:
        return None
    try:
        return decode(SessionOwner, data)
    except PoisonMessage as problem:
        log.warning("an entry of a session can not be read", reason=problem.reason)
        return SessionOwner()
