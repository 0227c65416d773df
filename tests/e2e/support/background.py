"""An event loop in a thread, for the servers of a test: kubectl blocks the test, the servers go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Self, TypeVar

from aiohttp import web

T = TypeVar("T")

START_SECONDS = 10.0


class BackgroundLoop:
    """Runs coroutines in its thread while the context is entered; what was entered in it ends with it.

    ``host`` is the address at which it serves.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-servers", daemon=True)
        self._stack = AsyncExitStack()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_SECONDS)
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of the coroutine, run in the thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(START_SECONDS)

    def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enter the context in the thread; it is left when the loop ends."""
        return self.run(self._stack.enter_async_context(context))

    def serve(self, app: web.Application, port: int = 0) -> str:
        """Serve the application (0: on a free port) and return its URL, without a slash at its end."""
        return self.run(self._serve(app, port))

    async def _serve(self, app: web.Application, port: int) -> str:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self.host, port).start()
        return f"http://{self.host}:{runner.addresses[0][1]}"
