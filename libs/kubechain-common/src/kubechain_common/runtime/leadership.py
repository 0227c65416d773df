"""How a controller service lives: its informers run on every replica, its work is done by the one that holds the Lease.

A standby so takes over with warm caches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from kubechain_common.kube.informer import Informer
from kubechain_common.kube.lease import LeaderElector
from kubechain_common.runtime.service import ServiceContext


async def run_led(
    context: ServiceContext, name: str, informers: Sequence[Informer[Any]], lead: Callable[[], Awaitable[None]]
) -> None:
    """Runs until the process is asked to stop; ``lead`` runs while this process holds the Lease ``kubechain-<name>``.

    Ready once the first lists are in, whoever leads.
    """
    context.health.add_check("caches", lambda: all(informer.has_synced.is_set() for informer in informers))
    elector = LeaderElector(
        context.kube, namespace=context.settings.namespace, name=f"kubechain-{name}", identity=context.identity
    )
    async with asyncio.TaskGroup() as group:
        following = [group.create_task(informer.run()) for informer in informers]
        for informer in informers:
            await informer.wait_synced()
        await elector.run(lead, context.stopping)
        for task in following:
            task.cancel()
