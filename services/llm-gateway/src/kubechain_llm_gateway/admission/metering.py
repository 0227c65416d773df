"""Holds a call back until its LLM's rate limit allows it, and books what it really cost.

An LLM without a limit pays nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import TokenUsage
from kubechain_common.api.v1alpha1.llm import LLMRateLimit
from kubechain_common.messaging.errors import RetryLater
from kubechain_llm_gateway.admission.metrics import RATE_LIMIT, WAITING
from kubechain_llm_gateway.admission.rate_limit import describe
from kubechain_llm_gateway.admission.rate_limiter import RateLimiter
from kubechain_llm_gateway.admission.token_guess import TokenGuess

Tell = Callable[[str], Awaitable[None]]
"""Tells a Task what its call waits for. The text is the rest of a sentence that begins with the LLM."""

PATIENCE = 2.0
"""Seconds that a call waits before its Task is told."""


@dataclass(frozen=True)
class Reservation:
    """A call's place: it had to wait for ``waited`` seconds, and ``tokens`` are booked for it."""

    waited: float = 0.0
    tokens: int = 0


FREE = Reservation()


class Meter:
    """Meters the calls of this replica; ``now`` gives seconds since the epoch."""

    def __init__(
        self,
        limiter: RateLimiter,
        find: Callable[[str], LLM | None],
        now: Callable[[], float],
        stopping: asyncio.Event,
    ) -> None:
        self._limiter = limiter
        self._find = find
        self._now = now
        self._stopping = stopping
        self._guesses: dict[str, TokenGuess] = {}

    async def wait(self, llm: LLM, characters: Callable[[], int], tell: Tell) -> Reservation:
        """Returns when the call may start. Raises RetryLater when this process is to end before."""
        limit = llm.spec.rate_limit
        if limit is None:
            return FREE
        tokens = self._guess(llm, characters()) if limit.tokens_per_minute is not None else 0
        began, told = self._now(), False

        async def sleep(seconds: float) -> None:
            nonlocal told
            if not told and self._now() + seconds - began > PATIENCE:
                told = True
                await tell(describe(limit))
            await self._sleep(seconds)

        with WAITING.labels(llm.namespace, llm.name, RATE_LIMIT).track_inprogress():
            start = await self._limiter.reserve(llm.uid, lambda: self._limit_of(llm), tokens, sleep)
            try:
                while (left := start - self._now()) > 0:
                    await sleep(left)
            except BaseException:  # a call that is never made costs nothing
                await self._limiter.correct(llm.uid, limit, -tokens)
                raise
        return Reservation(self._now() - began, tokens)

    async def book(self, llm: LLM, reservation: Reservation, characters: Callable[[], int], usage: TokenUsage) -> None:
        """Books what the call cost by the provider's count, which is nothing for one that was refused."""
        limit = llm.spec.rate_limit
        if limit is None or limit.tokens_per_minute is None:
            return
        self._guesses[llm.uid] = self._guesses.get(llm.uid, TokenGuess()).learn(characters(), usage)
        await self._limiter.correct(llm.uid, limit, usage.input_tokens + usage.output_tokens - reservation.tokens)

    def forget(self, uid: str) -> None:
        """Forgets the LLM, which is gone."""
        self._guesses.pop(uid, None)
        self._limiter.forget(uid)

    def _limit_of(self, llm: LLM) -> LLMRateLimit | None:
        """The limit of the LLM as it is now; None once the LLM is gone, which whoever calls it finds out."""
        latest = self._find(llm.uid)
        return latest.spec.rate_limit if latest is not None else None

    def _guess(self, llm: LLM, characters: int) -> int:
        parameters = llm.spec.parameters
        most = parameters.max_tokens if parameters is not None else None
        return self._guesses.get(llm.uid, TokenGuess()).guess(characters, most)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise RetryLater(0)
