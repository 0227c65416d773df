"""One lingering pull on a durable consumer: messages come when they come, nobody waits in between.

The client library's own ``fetch`` waits until its batch is full or its time is up, so a lone message would lie around.
Here the server is told once how many messages may come within the next half minute, and each is handed over the moment
it arrives. The server says what becomes of a request: it expired with so many messages undelivered, the consumer was
deleted, and now and then that it is still alive. Silence means that the request is gone, with a connection or a
server.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from kubechain_common.messaging import errors

EXPIRES = 30.0
IDLE_HEARTBEAT = 10.0
SILENCE = 2.5 * IDLE_HEARTBEAT
"""Seconds without a word from the server after which a pull counts as lost, once its owner looks."""

CONSUMER_DELETED = "Consumer Deleted"

_NANOS = 1_000_000_000
_ALIVE = "100"
_ENDED = frozenset({"404", "408"})
_CONFLICT = "409"


class Pull:
    """An inbox of its own and what has been asked for on it. A lost pull is thrown away, never repaired.

    ``on_message`` gets every message; ``on_change`` is called when more may be asked for, or when the pull was lost.
    """

    def __init__(
        self,
        nc: Any,
        stream: str,
        durable: str,
        on_message: Callable[[Any], Awaitable[None]],
        on_change: Callable[[], None],
    ) -> None:
        self._nc = nc
        self._request_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._on_message = on_message
        self._on_change = on_change
        self._inbox = nc.new_inbox()
        self._sub: Any = None
        self._heard_at = time.monotonic()
        self.outstanding = 0
        self.lost = ""
        self.proven = False
        """The server has answered on this pull."""

    async def open(self) -> None:
        """Start to listen. Raises the client's errors."""
        self._sub = await self._nc.subscribe(self._inbox, cb=self._handle)

    async def request(self, count: int) -> None:
        """Let ``count`` more messages come. Raises the client's errors."""
        if self.outstanding == 0:
            self._heard_at = time.monotonic()
        self.outstanding += count
        body = {"batch": count, "expires": int(EXPIRES * _NANOS), "idle_heartbeat": int(IDLE_HEARTBEAT * _NANOS)}
        await self._nc.publish(self._request_subject, json.dumps(body).encode(), reply=self._inbox)

    def mark_lost(self, reason: str) -> None:
        """Marks the pull as lost, and tells its owner to throw it away: nothing more will come."""
        if not self.lost:
            self.lost = reason
            self._on_change()

    def check_silence(self) -> None:
        """Mark the pull as lost when the server should have said something long ago."""
        if self.outstanding > 0 and time.monotonic() - self._heard_at > SILENCE:
            self.mark_lost("no heartbeat from the server")

    async def close(self) -> None:
        """Stop to listen; what the server had already sent is still handed to ``on_message`` before this returns."""
        sub, self._sub = self._sub, None
        if sub is None:
            return
        try:
            if self._nc.is_connected:
                await sub.drain()
            else:
                await sub.unsubscribe()
        except errors.ANY:
            return  # a subscription that cannot be ended properly has gone with its connection

    async def _handle(self, message: Any) -> None:
        self._heard_at = time.monotonic()
        status = (message.headers or {}).get("Status") if not message.data else None
        if status is None:
            self.proven = True
            self.outstanding = max(0, self.outstanding - 1)
            await self._on_message(message)
        elif status in _ENDED:
            self.proven = True
            undelivered = int(message.headers.get("Nats-Pending-Messages", self.outstanding))
            self.outstanding = max(0, self.outstanding - undelivered)
            self._on_change()
        elif status == _ALIVE:
            self.proven = True
        elif status == _CONFLICT:
            self.mark_lost(str(message.headers.get("Description", "refused")))
        else:
            self.mark_lost("no such consumer")
