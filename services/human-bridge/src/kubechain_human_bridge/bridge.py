"""The parts of the service and how they hang together."""

from __future__ import annotations

from kubechain_common.runtime.service import ServiceContext
from kubechain_human_bridge.settings import BridgeSettings
from kubechain_human_bridge.web.app import build_app, serve

LEASE = "human-bridge"


class Bridge:
    """One replica of human-bridge."""

    def __init__(self, ctx: ServiceContext, settings: BridgeSettings) -> None:
        self._ctx = ctx
        self._settings = settings

    async def run(self) -> None:
        """Serve until the context says stop."""
        async with serve(build_app(), self._settings.host, self._settings.port):
            await self._ctx.stopping.wait()
