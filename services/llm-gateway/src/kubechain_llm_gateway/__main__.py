"""The process: ``kubechain-llm-gateway`` or ``python -m kubechain_llm_gateway``."""

from __future__ import annotations

from kubechain_common.messages.topology import LLM_REQUESTS
from kubechain_common.runtime.service import ServiceContext, run_service
from kubechain_llm_gateway.gateway import Gateway


async def start(ctx: ServiceContext) -> None:
    """Serve until the context says stop."""
    await Gateway(ctx).run()


def main() -> None:
    """Run the service until SIGTERM."""
    run_service("llm-gateway", start, takes_from=[LLM_REQUESTS])


if __name__ == "__main__":
    main()
