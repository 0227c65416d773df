"""The NATS client with two faults mended that show when callers give up while they wait (nats-py 2.16, Python 3.11).

It waits with asyncio.wait_for, which drops a cancellation that arrives together with the answer: a loop that was told
to end would go on for ever. And the PONG to a flush that was cancelled or timed out ends its reader with an
InvalidStateError: the connection would be deaf until two pings have gone unanswered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import nats.aio.client

R = TypeVar("R")


class Client(nats.aio.client.Client):  # type: ignore[misc]  # nats is not type-checked here
    """nats-py's client, safe to be cancelled."""

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


async def cancellable(call: Awaitable[R]) -> R:
    """The call's result, or CancelledError when its task was cancelled meanwhile, even if the call dropped that."""
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    result = await call
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
    return result
