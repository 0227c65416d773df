"""What a process does to the world, one effect at a time, and the ways in which that can go wrong.

A fake hands every request that leaves a process to ``Effects.perform`` and waits. Nothing happens until the model
settles the effect with a fate, so every order of the effects of all processes can be played, and a process can die
between any two of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from enum import Enum
from typing import Any

from tests.model.loop import VirtualLoop

PROCESS: ContextVar[Process] = ContextVar("model_process")


class Fate(Enum):
    """How an effect ends, for the world and for whoever asked for it."""

    DONE = "done"
    REFUSED = "refused"  # did not happen, and the caller is told so
    ANSWER_LOST = "answer lost"  # happened, and the caller is told that it may have not
    INVALID = "invalid"  # the API server does not take the content
    CRASH_BEFORE = "crash before"
    CRASH_AFTER = "crash after"


class Process:
    """One run of a service: its tasks, and whether it lives."""

    def __init__(self, service: str, name: str) -> None:
        self.service = service
        self.name = name
        self.dead = False
        self.overtaken = False
        self.tasks: list[asyncio.Task[Any]] = []
        self.granted = asyncio.Event()
        self.revoked = asyncio.Event()

    def __repr__(self) -> str:
        return self.name


class Effect:
    """One request of a process, not yet carried out."""

    def __init__(
        self,
        process: Process,
        label: str,
        act: Callable[[], Any],
        failure: Callable[[], Exception] | None,
        invalid: Callable[[], Exception] | None,
        waiter: asyncio.Future[Any],
    ) -> None:
        self.process = process
        self.label = label
        self.act = act
        self.failure = failure
        self.invalid = invalid
        self.waiter = waiter

    def __repr__(self) -> str:
        return f"{self.process}: {self.label}"


class Effects:
    """The effects that processes wait for, oldest first."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.pending: list[Effect] = []
        self.trace: list[str] = []

    async def perform(
        self,
        label: str,
        act: Callable[[], Any],
        *,
        failure: Callable[[], Exception] | None = None,
        invalid: Callable[[], Exception] | None = None,
    ) -> Any:
        """``failure`` makes the error of a request that got no answer; without it, nobody waits for an answer."""
        process = PROCESS.get()
        if process.dead:
            raise asyncio.CancelledError
        effect = Effect(process, label, act, failure, invalid, self._loop.create_future())
        self.pending.append(effect)
        try:
            return await effect.waiter
        finally:
            if effect in self.pending:
                self.pending.remove(effect)

    def settle(self, effect: Effect, fate: Fate) -> None:
        """Carries the effect out, or not; a crash is the caller's to complete."""
        self.trace.append(f"{effect} [{fate.value}]")
        self.pending.remove(effect)
        result: Any = None
        error: Exception | None = None
        if fate is Fate.INVALID and effect.invalid is not None:
            error = effect.invalid()
        elif fate not in (Fate.REFUSED, Fate.CRASH_BEFORE):
            try:
                result = effect.act()
            except Exception as raised:
                error = raised
        if fate in (Fate.REFUSED, Fate.ANSWER_LOST) and effect.failure is not None:
            error = effect.failure()
        if fate in (Fate.CRASH_BEFORE, Fate.CRASH_AFTER) or effect.waiter.done():
            return
        if error is not None:
            effect.waiter.set_exception(error)
        else:
            effect.waiter.set_result(result)
