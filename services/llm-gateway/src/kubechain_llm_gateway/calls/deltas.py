"""Tells whoever listens what a model writes, while it writes it.

A call has a ``Draft``, which takes the text in without ever waiting. Nothing is sent for a Task that nobody listens
to, so without listeners a call costs a list of its pieces. What was written is sent at most every 50 ms, all calls in
one go, and at once when a call ends; somebody who comes late gets what was written before. The answer itself travels
by the result, so whatever is lost here does no harm.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from pydantic import ValidationError

from kubechain_common.messages import LISTENING_SECONDS, Envelope, LLMDelta, LLMListening, LLMRequest
from kubechain_common.messages.topology import llm_delta_subject, parse_llm_listening_subject

INTERVAL = 0.05
"""Seconds between two sendings."""

MAX_TEXT = 32 * 1024
"""Characters of one message."""

Key = tuple[str, str]
"""(namespace, uid) of a Task."""


class LiveBus(Protocol):
    """The part of the Bus that is needed here; see ``messaging.live``."""

    async def tell(self, subject: str, message: Envelope) -> None: ...


class Draft:
    """The text of one call. Calling it adds a piece."""

    def __init__(self, key: Key, turn: int, attempt: int, call: int, note: Callable[[Draft], None]) -> None:
        self.key = key
        self._turn = turn
        self._attempt = attempt
        self._call = call
        self._note = note
        self._pieces: list[str] = []
        self._sent = 0
        self._offset = 0

    def __call__(self, text: str) -> None:
        if text:
            self._pieces.append(text)
            self._note(self)

    def rewind(self) -> None:
        """Has everything sent again."""
        self._sent = self._offset = 0
        self._note(self)

    def take_unsent(self) -> list[LLMDelta]:
        """What was written since, in messages of a size that passes."""
        text = "".join(self._pieces[self._sent :])
        self._sent = len(self._pieces)
        deltas = []
        for start in range(0, len(text), MAX_TEXT):
            piece = text[start : start + MAX_TEXT]
            deltas.append(self._build(self._offset + start, piece))
        self._offset += len(text)
        return deltas

    def _build(self, offset: int, text: str) -> LLMDelta:
        return LLMDelta(
            turn=self._turn, attempt=self._attempt, call=self._call, offset=offset, text=_without_halves(text)
        )


def _without_halves(text: str) -> str:
    """The text with U+FFFD in place of half characters, which no message takes."""
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


class DeltaFeed:
    """The drafts of a replica, and who listens. ``run`` sends."""

    def __init__(self, live: LiveBus, clock: Callable[[], float] = time.monotonic) -> None:
        self._live = live
        self._clock = clock
        self._listening: dict[Key, float] = {}
        self._drafts: dict[Key, set[Draft]] = {}
        self._unsent: dict[Draft, None] = {}
        self._calls = itertools.count(1)
        self._wanted = asyncio.Event()
        self._urgent = asyncio.Event()

    @contextmanager
    def open(self, request: LLMRequest, attempt: int) -> Iterator[Draft]:
        """The draft of one call to a provider; each call has one of its own."""
        key = (request.task.namespace, request.task.uid)
        draft = Draft(key, request.turn, attempt, next(self._calls), self._note_written)
        drafts = self._drafts.setdefault(key, set())
        drafts.add(draft)
        try:
            yield draft
        finally:
            drafts.discard(draft)
            if not drafts:
                self._drafts.pop(key, None)
            if draft in self._unsent:
                self._urgent.set()

    def handle_listening(self, subject: str, data: bytes) -> None:
        """Notes that somebody listens, as a message on ``subject`` says."""
        key = parse_llm_listening_subject(subject)
        if key is None:
            return
        fresh = False
        with suppress(ValidationError):
            fresh = LLMListening.model_validate_json(data).fresh
        known = self._is_listened_to(key)
        self._forget_who_left()
        self._listening[key] = self._clock() + LISTENING_SECONDS
        if fresh or not known:
            for draft in self._drafts.get(key, ()):
                draft.rewind()

    async def run(self) -> None:
        """Send what is written; until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            self._urgent.clear()
            unsent, self._unsent = self._unsent, {}
            for draft in unsent:
                for delta in draft.take_unsent():
                    await self._live.tell(llm_delta_subject(*draft.key), delta)
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await self._urgent.wait()

    def _note_written(self, draft: Draft) -> None:
        if self._listening and self._is_listened_to(draft.key):
            self._unsent[draft] = None
            self._wanted.set()

    def _is_listened_to(self, key: Key) -> bool:
        return self._listening.get(key, 0.0) > self._clock()

    def _forget_who_left(self) -> None:
        now = self._clock()
        for key in [key for key, until in self._listening.items() if until <= now]:
            del self._listening[key]
