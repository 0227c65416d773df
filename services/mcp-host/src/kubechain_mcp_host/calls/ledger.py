"""The calls that this process runs, and those that it has run lately.

A request may come a second time: while the tool still runs (its heartbeat was late), or after its result was lost
together with the broker. As long as this process remembers, the one outcome answers them all.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from kubechain_common.messages import ToolResult

MAX_RESULTS = 512
MAX_CHARACTERS = 8 * 1024 * 1024


class CallLedger:
    """At most one run per call uid; the latest outcomes are kept, bounded in number and in size."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Future[ToolResult]] = {}
        self._finished: OrderedDict[str, ToolResult] = OrderedDict()
        self._characters = 0

    async def run_once(self, uid: str, run: Callable[[], Awaitable[ToolResult]]) -> ToolResult:
        """The outcome of the call: the known one, the one that is on its way, or that of ``run``.

        Whoever waits for another's run is cancelled, or gets its error, together with that run.
        """
        if (known := self._finished.get(uid)) is not None:
            return known
        if (other := self._running.get(uid)) is not None:
            return await asyncio.shield(other)
        future = self._running[uid] = asyncio.get_running_loop().create_future()
        try:
            result = await run()
        except asyncio.CancelledError:
            future.cancel()
            raise
        except Exception as error:
            future.set_exception(error)
            future.exception()  # nobody else has to be waiting for it
            raise
        else:
            future.set_result(result)
            self._keep(uid, result)
            return result
        finally:
            del self._running[uid]

    def _keep(self, uid: str, result: ToolResult) -> None:
        self._finished[uid] = result
        self._characters += _size(result)
        while len(self._finished) > MAX_RESULTS or self._characters > MAX_CHARACTERS:
            _, oldest = self._finished.popitem(last=False)
            self._characters -= _size(oldest)


def _size(result: ToolResult) -> int:
    return len(result.content) + len(result.error) + sum(len(image.data) for image in result.images)
