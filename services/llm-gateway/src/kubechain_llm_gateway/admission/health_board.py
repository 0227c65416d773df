"""What all replicas know about the providers' health, as this one knows it.

Looking costs nothing. A change counts here at once, is written into the LLM's shared entry and told to the other
replicas; it is decided again when another was faster. While the bus is away a replica goes by what it found out itself,
and after a reconnect, or a loss of the bus's storage, by what the entries say.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Protocol

from kubechain_common.messages.topology import llm_health_key
from kubechain_common.messaging.errors import MessagingError
from kubechain_common.messaging.shared_entries import SharedEntry
from kubechain_common.telemetry.logging import get_logger
from kubechain_llm_gateway.admission.circuit import HEALTHY, Health, decode, encode

log = get_logger(__name__)

_ALL = llm_health_key("*")
_RETRY_SECONDS = 1.0
_ATTEMPTS = 8


class Entries(Protocol):
    """See ``messaging.shared_entries``."""

    async def read(self, key: str) -> SharedEntry: ...
    async def write(self, key: str, data: bytes, revision: int) -> int | None: ...
    async def find_keys(self, pattern: str) -> list[str]: ...
    async def tell(self, key: str) -> None: ...
    async def listen(self, pattern: str, callback: Callable[[str], None]) -> Callable[[], Awaitable[None]]: ...


class HealthBoard:
    """What is known of each LLM's provider, by the LLM's uid. ``run`` follows the other replicas."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._known: dict[str, tuple[Health, int]] = {}
        self._writing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._handlers: list[Callable[[str], None]] = []
        self._told: set[str] = set()
        self._look_at_all = True
        self._wake = asyncio.Event()

    def add_handler(self, handler: Callable[[str], None]) -> None:
        """Call back with the LLM's uid after each change of what is known about it."""
        self._handlers.append(handler)

    def get(self, uid: str) -> Health:
        return self._known.get(uid, (HEALTHY, 0))[0]

    def all(self) -> dict[str, Health]:
        """The health of each provider about which anything is known."""
        return {uid: health for uid, (health, _) in self._known.items() if health != HEALTHY}

    def forget(self, uid: str) -> None:
        """Forgets the LLM, which is gone. Its entry goes by its age."""
        self._known.pop(uid, None)
        self._writing.pop(uid, None)

    def look_at(self, uid: str) -> None:
        """Reads the entry of an LLM that is new here, or here again."""
        self._told.add(uid)
        self._wake.set()

    async def change(self, uid: str, decide: Callable[[Health], Health]) -> bool:
        """Changes what is known as ``decide`` says, which is pure and may be called again; whether this very call
        changed it.
        """
        async with self._writing[uid]:
            for _ in range(_ATTEMPTS):
                health, revision = self._known.get(uid, (HEALTHY, 0))
                new = decide(health)
                if new == health:
                    return False
                if await self._write(uid, new, revision):
                    return True
        log.warning("the health of an LLM is written by too many at once", uid=uid)
        return False

    async def run(self) -> None:
        """Follows what the other replicas write, until cancelled."""
        end: Callable[[], Awaitable[None]] | None = None
        try:
            while True:
                try:
                    end = end or await self._entries.listen(_ALL, self._handle_word)
                    await self._look()
                except MessagingError as error:
                    log.debug("cannot look at the health of LLMs", error=str(error))
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                await self._wake.wait()
                self._wake.clear()
        finally:
            if end is not None:
                await end()

    def look_at_all(self) -> None:
        """Reads all entries again, because words may have been missed, or the entries lost."""
        self._look_at_all = True
        self._wake.set()

    def _handle_word(self, key: str) -> None:
        self.look_at(key.removeprefix(llm_health_key("")))

    async def _look(self) -> None:
        if self._look_at_all:
            found = {key.removeprefix(llm_health_key("")) for key in await self._entries.find_keys(_ALL)}
            self._told |= found | self._known.keys()
            self._look_at_all = False
        while self._told:
            uid = self._told.pop()
            try:
                async with self._writing[uid]:  # what was read meanwhile would be older than what is being written
                    await self._read(uid)
            except MessagingError:
                self._told.add(uid)
                raise

    async def _read(self, uid: str) -> None:
        entry = await self._entries.read(llm_health_key(uid))
        self._set(uid, decode(entry.data) if entry.revision else HEALTHY, entry.revision)

    async def _write(self, uid: str, health: Health, revision: int) -> bool:
        """Writes the entry. False when another replica wrote first, and then it is known what."""
        self._set(uid, health, revision)
        try:
            written = await self._entries.write(llm_health_key(uid), encode(health), revision)
            if written is None:
                await self._read(uid)
                return False
            self._set(uid, health, written)
            await self._entries.tell(llm_health_key(uid))
        except MessagingError as error:
            log.warning("the health of an LLM is known to this replica only", uid=uid, error=str(error))
        except BaseException:
            self.look_at(uid)  # nobody knows whether it was written, and nobody else is going to write it
            raise
        return True

    def _set(self, uid: str, health: Health, revision: int) -> None:
        before = self.get(uid)
        if health == HEALTHY and not revision:
            self._known.pop(uid, None)
        else:
            self._known[uid] = health, revision
        if health != before:
            log.info("llm health", uid=uid, circuit=health.circuit, reason=health.reason, until=health.paused_until)
            for handler in self._handlers:
                handler(uid)
