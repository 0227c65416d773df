"""The process: ``kubechain-human-bridge`` or ``python -m kubechain_human_bridge``."""

from __future__ import annotations

from kubechain_common.messages.topology import HUMAN_REQUESTS
from kubechain_common.runtime.service import ServiceContext, run_service
from kubechain_human_bridge.bridge import Bridge
from kubechain_human_bridge.settings import BridgeSettings

NAME = "human-bridge"


async def start(ctx: ServiceContext) -> None:
    """Serve until the context says stop."""
    await Bridge(ctx, BridgeSettings()).run()


def main() -> None:
    """Run the service until SIGTERM."""
    run_service(NAME, start, takes_from=[HUMAN_REQUESTS])


if __name__ == "__main__":
    main()
