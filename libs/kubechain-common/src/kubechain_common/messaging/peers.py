"""Questions among the replicas of one service: core NATS, with news until the answer comes.

Nothing of it is kept. Whoever asks hears nothing more when the other side dies, and asks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar

from kubechain_common.messages.envelope import Envelope
from kubechain_common.messaging import codec, errors
from kubechain_common.messaging.connection import Connection
from kubechain_common.telemetry.logging import get_logger

M = TypeVar("M", bound=Envelope)

Answer = Callable[[Envelope], Awaitable[None]]
"""Says something to whoever asked. No error if nobody hears it."""

_NO_RESPONDERS = "503"

_log = get_logger(__name__)


class NobodyThereError(Exception):
    """Nobody listens on the subject."""


class Peers:
    """Asks and answers over a connection that exists for other reasons."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @asynccontextmanager
    async def ask(self, subject: str, message: Envelope, model: type[M]) -> AsyncIterator[News[M]]:
        """Ask, and hear the news while the context is entered. Raises BusUnavailableError."""
        nc = self._connection.nc
        inbox = nc.new_inbox()
        news = News(model)
        try:
            await self._connection.ready()
            subscription = await nc.subscribe(inbox, cb=news.take)
            try:
                await nc.publish(subject, codec.encode(message), reply=inbox)
                yield news
            finally:
                with suppress(*errors.ANY):
                    await subscription.unsubscribe()
        except errors.ANY as error:
            raise errors.translate(error, f"asking {subject}") from error

    async def tell(self, subject: str, message: Envelope) -> None:
        """Say it to whoever listens. No error if nobody can be told."""
        with suppress(*errors.ANY):
            await self._connection.nc.publish(subject, codec.encode(message))

    @asynccontextmanager
    async def answering(self, subject: str, model: type[M], handle: Callable[[M, Answer], None]) -> AsyncIterator[None]:
        """Call ``handle`` with each question while the context is entered. Raises MessagingError."""

        async def take(raw: Any) -> None:
            async def answer(message: Envelope) -> None:
                if raw.reply:
                    await self.tell(raw.reply, message)

            try:
                handle(codec.decode(model, raw.data), answer)
            except errors.PoisonMessage as problem:
                _log.warning("a question that can not be read", subject=raw.subject, reason=problem.reason)

        async with self._connection.listening(subject, take):
            yield


class News(Generic[M]):
    """What the other side says, in order."""

    def __init__(self, model: type[M]) -> None:
        self._model = model
        self._said: asyncio.Queue[M | None] = asyncio.Queue()

    async def next(self, seconds: float) -> M | None:
        """The next word; None if there is none within so many seconds. Raises NobodyThereError."""
        try:
            async with asyncio.timeout(seconds):
                said = await self._said.get()
        except TimeoutError:
            return None
        if said is None:
            raise NobodyThereError
        return said

    async def take(self, raw: Any) -> None:
        """Called by the client for each message."""
        if not raw.data and (raw.headers or {}).get("Status") == _NO_RESPONDERS:
            self._said.put_nowait(None)
            return
        try:
            self._said.put_nowait(codec.decode(self._model, raw.data))
        except errors.PoisonMessage as problem:
            _log.warning("news that can not be read", reason=problem.reason)
