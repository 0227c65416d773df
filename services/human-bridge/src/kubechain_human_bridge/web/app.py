"""The HTTP server of the bridge: modules bring their routes, this one serves them.

Nothing here is the record of anything: a request ends in an answer in the API server, or in a refusal.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from kubechain_common.runtime.sites import build_site
from kubechain_common.telemetry.logging import get_logger
from kubechain_human_bridge.web.bodies import LIMITS, MAX_BODY, BodyLimits

_log = get_logger(__name__)


def build_app(*routes: Sequence[web.AbstractRouteDef]) -> web.Application:
    """An application with all these routes."""
    app = web.Application(client_max_size=MAX_BODY)
    app[LIMITS] = BodyLimits()
    for group in routes:
        app.router.add_routes(group)
    return app


@asynccontextmanager
async def serve(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Serves until the block ends, without a ``host`` on every address; the port that is served. Raises OSError when it
    is taken.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await build_site(runner, host, port).start()
        served = int(runner.addresses[0][1])
        _log.info("bridge endpoint up", host=host, port=served)
        yield served
    finally:
        await runner.cleanup()
