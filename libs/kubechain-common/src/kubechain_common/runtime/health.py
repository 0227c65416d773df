"""/livez, /readyz and /metrics.

Live: the event loop turns. Ready: every registered check says so, and we are not draining. The endpoint is up before
anything is connected, so that a probe gets a reason instead of a refused connection.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from kubechain_common.runtime.sites import build_site
from kubechain_common.telemetry.logging import get_logger
from kubechain_common.telemetry.metrics import CONTENT_TYPE, render_metrics

Check = Callable[[], bool | Awaitable[bool]]
Refresh = Callable[[], Awaitable[None]]

_log = get_logger(__name__)


class Health:
    """The checks of one process."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._refreshes: list[Refresh] = []
        self.port = 0
        """The port that is served, once it is."""

    def add_check(self, name: str, check: Check) -> None:
        """Adds a check: the process is not ready while ``check`` returns False or raises. A second check of the same
        name replaces the first.
        """
        self._checks[name] = check

    def add_figures(self, refresh: Refresh) -> None:
        """``refresh`` brings some figures up to date whenever the metrics are asked for."""
        self._refreshes.append(refresh)

    async def failing(self) -> list[str]:
        """The names of the checks that fail, in the order of their registration."""
        return [name for name, check in list(self._checks.items()) if not await _passes(name, check)]

    @asynccontextmanager
    async def serve(self, host: str, port: int) -> AsyncIterator[None]:
        """Serve the endpoint, without a ``host`` on every address. Raises OSError when the port is taken."""
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await build_site(runner, host, port).start()
            self.port = int(runner.addresses[0][1])
            _log.info("health endpoint up", host=host, port=self.port)
            yield
        finally:
            await runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        failing = await self.failing()
        lines = [f"[{'-' if name in failing else '+'}] {name}" for name in self._checks]
        lines.append("not ready" if failing else "ready")
        return web.Response(text="\n".join(lines) + "\n", status=503 if failing else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        for refresh in self._refreshes:
            await refresh()
        return web.Response(body=render_metrics(), headers={"Content-Type": CONTENT_TYPE})


async def _passes(name: str, check: Check) -> bool:
    try:
        result = check()
        return bool(await result) if inspect.isawaitable(result) else bool(result)
    except Exception as error:
        _log.warning("health check failed", check=name, error=f"{type(error).__name__}: {error}")
        return False
