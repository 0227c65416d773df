"""The NATS client with four faults mended that show when callers give up while they wait, and when the connection goes
(nats-py 2.16, Python 3.11).

It waits with asyncio.wait_for, which drops a cancellation that arrives together with the answer: a loop that was told
to end would go on for ever. The PONG to a flush that was cancelled or timed out ends its reader with an
InvalidStateError: the connection would be deaf until two pings have gone unanswered. The connection itself has faults
of its own (``transport``). And nobody looks at the task that reconnects: should it ever end by an error that it does
not expect, the client would stay without a connection and say nothing. It is closed then.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable
from typing import Any, TypeVar

import nats.aio.client

from kubechain_common.messaging.transport import TcpTransport

R = TypeVar("R")


class Client(nats.aio.client.Client):  # type: ignore[misc]  # nats is not type-checked here
    """nats-py's client, safe to be cancelled and to lose its connection."""

    _transport: Any
    _pending: list[bytes]

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """The option ``tls`` may be a function, which is asked at each connect."""
        tls = self.options.get("tls")
        context: ssl.SSLContext = tls() if callable(tls) else super().ssl_context
        return context

    async def request(self, *args: Any, **kwargs: Any) -> Any:
        return await cancellable(super().request(*args, **kwargs))

    async def flush(self, *args: Any, **kwargs: Any) -> None:
        await cancellable(super().flush(*args, **kwargs))

    async def _process_pong(self) -> None:
        if not self._pongs or not self._pongs[0].done():
            await super()._process_pong()
            return
        self._pongs.pop(0)
        self._pongs_received += 1
        self._pings_outstanding = 0

    async def _connect_to_server(self, server: Any) -> None:
        if self._transport is None and server.uri.scheme not in ("ws", "wss"):
            self._transport = TcpTransport()
        await super()._connect_to_server(server)

    async def _attempt_reconnect(self) -> None:
        try:
            await super()._attempt_reconnect()
        except Exception as error:
            await self._error_cb(error)
            self._reconnection_task = None  # closing would cancel it, which is ourselves
            await self.close()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        if not self.is_connected:
            # There is nobody to send it to, and to try would end the closing halfway.
            self._pending, self._pending_data_size = [], 0
        await super()._close(status, do_cbs)


async def cancellable(call: Awaitable[R]) -> R:
    """The call's result, or CancelledError when its task was cancelled meanwhile, even if the call dropped that."""
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    result = await call
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
    return result
