"""Words that only those hear who listen at that moment: core NATS, at most once, and nobody waits for them.

``Live`` is the part of a service's Bus; ``Listener`` is a connection of its own for a program that only listens, and
so leaves the streams alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from kubechain_common.messages.envelope import Envelope
from kubechain_common.messaging import codec, errors
from kubechain_common.messaging.client import Client
from kubechain_common.messaging.connection import Connection
from kubechain_common.telemetry.logging import get_logger

_PATIENCE = 2.0
_RECONNECT_WAIT = 0.25

_log = get_logger(__name__)


class Live:
    """Tells and hears over a connection that exists for other reasons."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def tell(self, subject: str, message: Envelope) -> None:
        """Say it to whoever listens. No error if nobody can be told."""
        if self._connection.connected:
            with suppress(*errors.ANY):
                await self._connection.nc.publish(subject, codec.encode(message))

    @asynccontextmanager
    async def hear(self, subject: str, handle: Callable[[str, bytes], None]) -> AsyncIterator[None]:
        """Call ``handle`` with the subject and the payload of each message while the context is entered; also after
        a reconnect. Raises MessagingError.
        """

        async def take(message: Any) -> None:
            try:
                handle(message.subject, message.data)
            except Exception:
                _log.exception("a message that was heard could not be handled", subject=message.subject)

        async with self._connection.listening(subject, take):
            yield


class Listener:
    """Hears one subject. Reconnects for ever once it was connected."""

    def __init__(self, nc: Any, subscription: Any) -> None:
        self._nc = nc
        self._subscription = subscription

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, name: str, subject: str, *, patience: float = _PATIENCE) -> AsyncIterator[Self]:
        """Connect and listen. Raises BusUnavailableError unless that is done within ``patience`` seconds."""
        nc: Any = Client()
        last: list[Exception] = []

        async def note(error: Exception) -> None:
            last[:] = [error]
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # the client drops a cancellation that comes with a failure
                raise asyncio.CancelledError

        try:
            try:
                async with asyncio.timeout(patience):
                    await nc.connect(
                        url,
                        name=name,
                        max_reconnect_attempts=-1,
                        reconnect_time_wait=_RECONNECT_WAIT,
                        skip_subject_validation=True,
                        error_cb=note,
                    )
                    subscription = await nc.subscribe(subject)
            except errors.ANY as error:
                reason = last[0] if last else error
                raise errors.BusUnavailableError(f"NATS cannot be reached: {reason or 'no answer'}") from None
            yield cls(nc, subscription)
        finally:
            with suppress(*errors.ANY):
                await nc.close()

    async def tell(self, subject: str, message: Envelope) -> None:
        """Say it to whoever listens. No error if nobody can be told."""
        with suppress(*errors.ANY):
            await self._nc.publish(subject, codec.encode(message))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The payloads of what is heard."""
        async for message in self._subscription.messages:
            yield message.data
