"""Lets the calls of LLMs out to their providers: all that may hold a call back on its way is asked here.

The health of the provider as all replicas know it (``circuit``), the order of those that wait (``gate``), the LLM's own
limits (``metering``) and the namespace's share of this replica (``fair_share``). What comes of the call is reported
back and decides about the next ones. A call that nothing holds back, of an LLM without limits, costs no round trip.

A call that waits costs no attempt. What it waits for is told once it has waited for some seconds, and again when that
changes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import TokenUsage
from kubechain_common.messaging.errors import RetryLater
from kubechain_common.runtime.clock import epoch
from kubechain_common.runtime.waiting import wait_any
from kubechain_common.telemetry.logging import get_logger
from kubechain_llm_gateway.admission.circuit import (
    TRIP_AFTER,
    Block,
    Circuit,
    Sign,
    circuit_of,
    find_block,
    pause,
    read_pause,
    read_sign,
    recover,
    trip,
)
from kubechain_llm_gateway.admission.fair_share import FairShare
from kubechain_llm_gateway.admission.fallback import ProviderBlockedError
from kubechain_llm_gateway.admission.gate import Gate, Waiter
from kubechain_llm_gateway.admission.health_board import HealthBoard
from kubechain_llm_gateway.admission.metering import FREE, PATIENCE, Meter, Tell
from kubechain_llm_gateway.admission.metrics import PROVIDER, WAITING
from kubechain_llm_gateway.providers.errors import ProviderError

log = get_logger(__name__)

_RESTARTING = "its provider answers again; calls start one by one"
_ORDERLY = "others of its calls come first"


class Answer(Protocol):
    """What a call gives."""

    @property
    def usage(self) -> TokenUsage: ...


Leave = Callable[[Block], bool]
"""Whether to go elsewhere instead of waiting for what blocks the call."""

R = TypeVar("R", bound=Answer)
NOTHING = TokenUsage()


@dataclass(frozen=True)
class Prepared(Generic[R]):
    """A call that can be made: of which LLM, as it was then, and what makes it."""

    llm: LLM
    make: Callable[[], Awaitable[R]]


@dataclass(frozen=True)
class _Outcome(Generic[R]):
    """What came of a call that began at ``began``: a result or an error."""

    llm: LLM
    began: float
    result: R | None = None
    error: ProviderError | None = None

    @property
    def usage(self) -> TokenUsage:
        return self.result.usage if self.result is not None else NOTHING


_TOO_MANY = frozenset({429, 529})
_RECONSIDER = 5.0
"""Seconds after which a call that waits looks whether it could go elsewhere by now."""


class Admission:
    """Lets the calls of this replica out."""

    def __init__(
        self, board: HealthBoard, meter: Meter, find: Callable[[str], LLM | None], stopping: asyncio.Event
    ) -> None:
        self._board = board
        self._meter = meter
        self._find = find
        self._stopping = stopping
        self._gates: dict[str, Gate] = {}
        self._share = FairShare()
        self._failures: dict[str, tuple[int, int]] = {}
        board.add_handler(self._look)

    async def run(
        self,
        llm: LLM,
        characters: Callable[[], int],
        tell: Tell,
        prepare: Callable[[float], Awaitable[Prepared[R]]],
        leave: Leave | None = None,
    ) -> R:
        """Make the call once nothing stands in its way. ``prepare``, which is told how many seconds it waited and may
        take time itself, gives the call; it is asked again when the provider was blocked meanwhile.

        ``characters`` counts what the model is to read; ``leave`` says whether to go elsewhere instead of waiting.

        Raises:
            ProviderBlockedError: as ``leave`` said; the call was not made.
            RetryLater: this process is to end, and the call was not made.
            ProviderError, and whatever else the call and its preparation raise.
        """
        gate, waited, came_back = self._gate_of(llm), 0.0, False
        while True:
            waited += await self._pass_gate(llm, gate, tell, leave, first=came_back)
            latest = self._latest(llm)
            outcome, reservation = None, FREE
            try:
                reservation = await self._meter.wait(latest, characters, tell)
                waited += reservation.waited
                outcome = await self._call(latest, prepare, waited)
                if outcome is not None:
                    return await self._learn(gate, outcome)
            finally:
                gate.leave()
                self._tidy(llm)
                if reservation is not FREE:
                    usage = outcome.usage if outcome is not None else NOTHING
                    await self._meter.book(latest, reservation, characters, usage)
            came_back = True

    def find_block(self, llm: LLM) -> Block | None:
        """Why no call of the LLM, as it is now, may be made. None for one that is gone: who prepares a call finds that
        out.
        """
        latest = self._find(llm.uid)
        if latest is None:
            return None
        return find_block(self._board.get(llm.uid), latest.metadata.generation, epoch())

    async def _call(
        self, llm: LLM, prepare: Callable[[float], Awaitable[Prepared[R]]], waited: float
    ) -> _Outcome[R] | None:
        """Makes the call; None when something came in between, and it was not made."""
        async with self._share.hold(llm.namespace):
            prepared = await prepare(waited)
            if self.find_block(llm) is not None:
                return None
            began = epoch()
            try:
                return _Outcome(prepared.llm, began, result=await prepared.make())
            except ProviderError as error:
                return _Outcome(prepared.llm, began, error=error)

    async def _learn(self, gate: Gate, outcome: _Outcome[R]) -> R:
        """Takes in what a call's end says about the provider; the result of the call. Raises its error.

        What became of a call says nothing about an LLM that has been edited meanwhile: it may have another provider.
        """
        llm, error = outcome.llm, outcome.error
        latest = self._find(llm.uid)
        if latest is not None and latest.metadata.generation == llm.metadata.generation:
            await self._judge(llm, error, outcome.began)
            await self._pace(llm, gate, error)
        if error is not None:
            raise error
        assert outcome.result is not None
        return outcome.result

    async def _judge(self, llm: LLM, error: ProviderError | None, began: float) -> None:
        """Whether the provider is alive."""
        uid, generation = llm.uid, llm.metadata.generation
        match read_sign(error):
            case Sign.ALIVE:
                self._failures.pop(uid, None)
                if self._board.get(uid).circuit is not Circuit.CLOSED:
                    await self._board.change(uid, lambda health: recover(health, epoch()))
            case Sign.DEAD:
                failures = self._count_failure(llm)
                on_trial = circuit_of(self._board.get(uid), generation) is Circuit.TRIAL
                if on_trial or failures >= TRIP_AFTER:
                    reason = error.message if error is not None else ""
                    await self._board.change(uid, lambda health: trip(health, generation, reason, began, epoch()))

    async def _pace(self, llm: LLM, gate: Gate, error: ProviderError | None) -> None:
        """How many calls it takes."""
        seconds = read_pause(error)
        if error is None:
            gate.widen()
        elif seconds is not None:
            generation, words = llm.metadata.generation, error.message
            await self._board.change(llm.uid, lambda health: pause(health, generation, seconds, words, epoch()))
        elif error.retryable and error.status_code in _TOO_MANY:
            gate.narrow(gate.under_way // 2)  # it does not say for how long, so find out how many it takes

    def _count_failure(self, llm: LLM) -> int:
        """The failures in a row, of this generation."""
        generation, failures = self._failures.get(llm.uid, (0, 0))
        failures = failures + 1 if generation == llm.metadata.generation else 1
        self._failures[llm.uid] = llm.metadata.generation, failures
        return failures

    def forget(self, llm: LLM) -> None:
        """Forgets the LLM, which is gone; calls that still wait for it are looked at once more."""
        self._failures.pop(llm.uid, None)
        self._board.forget(llm.uid)
        self._meter.forget(llm.uid)
        self._tidy(llm)
        gate = self._gates.get(llm.uid)
        if gate is not None:
            gate.look()

    def _tidy(self, llm: LLM) -> None:
        """Drops the gate of an LLM that is gone, once nobody is at it: it may be there again (etcd restored), and who
        waits at a gate that is not looked at waits for ever.
        """
        gate = self._gates.get(llm.uid)
        if gate is not None and gate.is_empty and self._find(llm.uid) is None:
            del self._gates[llm.uid]

    def handle_change(self, llm: LLM) -> None:
        """Looks again at what holds calls of an edited LLM back: it may have another provider."""
        self._look(llm.uid)

    async def _pass_gate(self, llm: LLM, gate: Gate, tell: Tell, leave: Leave | None, *, first: bool) -> float:
        """Waits for a turn at the gate, before all others if ``first``; the seconds that it took. Raises RetryLater and
        ProviderBlockedError.
        """
        if gate.try_enter():
            return 0.0
        self._check_leave(llm, leave)
        loop = asyncio.get_running_loop()
        began = loop.time()
        waiter = gate.queue(first=first)
        try:
            with WAITING.labels(llm.namespace, llm.name, PROVIDER).track_inprogress():
                await self._wait(llm, gate, waiter, tell, leave)
        except BaseException:
            gate.give_up(waiter)
            self._tidy(llm)
            raise
        return loop.time() - began

    async def _wait(self, llm: LLM, gate: Gate, waiter: Waiter, tell: Tell, leave: Leave | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await wait_any(waiter.going, self._stopping)
        told = ""
        while not waiter.going.is_set():
            if self._stopping.is_set():
                raise RetryLater(0)
            changed = gate.changed  # taken before the look, so that no change falls in between
            self._check_leave(llm, leave)
            reason = self._explain(llm)
            if reason != told:
                log.info("llm call waits", reason=reason)
                await tell(reason)
                told = reason
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if leave is None else _RECONSIDER):
                    await wait_any(waiter.going, changed, self._stopping)

    def _check_leave(self, llm: LLM, leave: Leave | None) -> None:
        block = self.find_block(llm)
        if leave is not None and block is not None and leave(block):
            raise ProviderBlockedError(block)

    def _explain(self, llm: LLM) -> str:
        block = self.find_block(llm)
        if block is not None:
            return block.sentence
        return _RESTARTING if self._is_on_trial(llm) else _ORDERLY

    def _latest(self, llm: LLM) -> LLM:
        """The LLM as it is now, or as it was when the call came if it is gone."""
        return self._find(llm.uid) or llm

    def _is_on_trial(self, llm: LLM) -> bool:
        return circuit_of(self._board.get(llm.uid), self._latest(llm).metadata.generation) is Circuit.TRIAL

    def _gate_of(self, llm: LLM) -> Gate:
        gate = self._gates.get(llm.uid)
        if gate is None:
            gate = self._gates[llm.uid] = Gate(lambda: self.find_block(llm), epoch)
            if self._is_on_trial(llm):
                gate.narrow()
        return gate

    def _look(self, uid: str) -> None:
        gate, llm = self._gates.get(uid), self._find(uid)
        if gate is not None:
            if llm is not None and self.find_block(llm) is not None:
                gate.narrow()
            gate.look()
