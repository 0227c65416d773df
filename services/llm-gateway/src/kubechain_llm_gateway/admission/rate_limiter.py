"""Keeps the limits that ``rate_limit`` calculates, together with the other replicas: one shared entry per LLM.

One write reserves for all calls of this replica that wait, as far ahead as one may look, so that a replica under load
writes once a second or two and not once a call. An entry that is lost with the bus's storage begins anew. While the bus
is away calls wait for it, as their results would.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from kubechain_common.api.v1alpha1.llm import LLMRateLimit
from kubechain_common.messages.topology import llm_rate_key
from kubechain_common.messaging.errors import MessagingError
from kubechain_common.messaging.shared_entries import SharedEntry
from kubechain_common.telemetry.logging import get_logger
from kubechain_llm_gateway.admission.rate_limit import (
    FRESH,
    HORIZON,
    RateState,
    correct,
    decode,
    encode,
    next_start,
    reserve,
)

log = get_logger(__name__)

_BUS_RETRY = 0.5
_LONGEST_STEP_ASIDE = 0.02
"""Seconds at most for which a replica that was too slow lets the others pass."""
_SHORTEST_WAIT, _LONGEST_WAIT = 0.05, 5.0
_WORTH_A_WRITE = 0.02
"""Share of a minute's tokens. A correction that is as large is written at once, not with the next reservation."""


class Entries(Protocol):
    """See ``messaging.shared_entries``."""

    async def read(self, key: str) -> SharedEntry: ...
    async def write(self, key: str, data: bytes, revision: int) -> int | None: ...


class _Wish:
    """A call that is to start some time; ``start`` is when it may."""

    __slots__ = ("start", "tokens")

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.start: float | None = None


class _Ledger:
    """What this replica knows of one LLM's entry, and what it wants of it."""

    def __init__(self) -> None:
        self.state = FRESH
        self.revision = 0
        self.wishes: list[_Wish] = []
        self.correction = 0
        self.lock = asyncio.Lock()
        self.reserved_until = 0.0
        self.limit: LLMRateLimit | None = None
        self.look_at = 0.0
        """The time before which nothing can be reserved; calls that come meanwhile are looked after together."""


class RateLimiter:
    """Reserves start times for the calls of this replica; ``now`` gives seconds since the epoch."""

    def __init__(self, entries: Entries, now: Callable[[], float]) -> None:
        self._entries = entries
        self._now = now
        self._ledgers: dict[str, _Ledger] = {}

    async def reserve(
        self,
        uid: str,
        find_limit: Callable[[], LLMRateLimit | None],
        tokens: int,
        sleep: Callable[[float], Awaitable[None]],
    ) -> float:
        """When a call of so many tokens may start, by the limit of now, which may change or go while it waits.

        ``sleep`` is waited in, and may raise to give up.
        """
        ledger = self._ledgers.setdefault(uid, _Ledger())
        wish = _Wish(tokens)
        ledger.wishes.append(wish)
        try:
            while True:
                limit = find_limit()
                if limit is None:
                    return self._now()
                again = await self._try_reserve(uid, ledger, limit, wish)
                if wish.start is not None:
                    return wish.start
                await sleep(min(max(_SHORTEST_WAIT, again), _LONGEST_WAIT))
        except BaseException:
            if wish.start is not None and ledger.limit is not None:  # somebody else's write reserved for it meanwhile
                await self.correct(uid, ledger.limit, -tokens)
            raise
        finally:
            if wish.start is None:
                ledger.wishes.remove(wish)

    async def _try_reserve(self, uid: str, ledger: _Ledger, limit: LLMRateLimit, wish: _Wish) -> float:
        """Seconds until it is worth another try; whoever comes first writes for all."""
        try:
            async with ledger.lock:
                if wish.start is None and (ledger.look_at <= self._now() or ledger.limit != limit):
                    await self._settle(uid, ledger, limit)
                    ledger.limit = limit
                    ledger.look_at = min(next_start(ledger.state, self._now()) - HORIZON / 2, ledger.reserved_until)
        except MessagingError as error:
            log.warning("cannot share the rate of an LLM, waiting for the bus", uid=uid, error=str(error))
            return _BUS_RETRY
        return ledger.look_at - self._now()

    async def correct(self, uid: str, limit: LLMRateLimit, tokens: int) -> None:
        """Books so many tokens more than were reserved for a call, or less where ``tokens`` is negative."""
        if limit.tokens_per_minute is None:
            return
        ledger = self._ledgers.setdefault(uid, _Ledger())
        ledger.correction += tokens
        if abs(ledger.correction) >= _WORTH_A_WRITE * limit.tokens_per_minute and not ledger.lock.locked():
            with contextlib.suppress(MessagingError):  # then it goes with the next reservation
                async with ledger.lock:
                    await self._settle(uid, ledger, limit)

    def forget(self, uid: str) -> None:
        """Forgets the LLM, which is gone; its entry goes by its age."""
        self._ledgers.pop(uid, None)

    async def _settle(self, uid: str, ledger: _Ledger, limit: LLMRateLimit) -> None:
        """Write what this replica wants, until nobody is faster. Raises MessagingError."""
        while True:
            wishes, correction, at = list(ledger.wishes), ledger.correction, self._now()
            state = correct(ledger.state, limit, correction, at) if correction else ledger.state
            alone = ledger.reserved_until <= at  # no call of this replica has its time ahead of it
            state, starts = reserve(state, limit, [wish.tokens for wish in wishes], at, at_least_one=alone)
            if not starts and not correction:
                return
            if await self._write(uid, ledger, state):
                break
        ledger.correction -= correction
        for wish, start in zip(wishes, starts, strict=False):
            wish.start = start
            if wish in ledger.wishes:
                ledger.wishes.remove(wish)
        ledger.reserved_until = max(ledger.reserved_until, *starts) if starts else ledger.reserved_until

    async def _write(self, uid: str, ledger: _Ledger, state: RateState) -> bool:
        """Writes the entry. False when another replica was faster, and then it is known what is there."""
        key = llm_rate_key(uid)
        revision = await self._entries.write(key, encode(state), ledger.revision)
        if revision is not None:
            ledger.state, ledger.revision = state, revision
            return True
        if ledger.revision:
            await asyncio.sleep(random.uniform(0, _LONGEST_STEP_ASIDE))
        entry = await self._entries.read(key)
        ledger.state, ledger.revision = decode(entry.data) if entry.revision else FRESH, entry.revision
        return False
