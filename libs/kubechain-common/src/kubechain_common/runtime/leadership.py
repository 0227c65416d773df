"""How a controller service lives: its informers run on every replica, its work is done by the one that holds the Lease.

A standby so takes over with warm caches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from kubechain_common.kube.informer import Informer
from kubechain_common.kube.lease import LeaderElector
from kubechain_common.runtime.service import ServiceContext
from kubechain_common.runtime.waiting import run_unless


def build_elector(context: ServiceContext, name: str) -> LeaderElector:
    """The elector for the Lease ``kubechain-<name>``."""
    return LeaderElector(
        context.kube, namespace=context.settings.namespace, name=f"kubechain-{name}", identity=context.identity
    )


async def run_led(
    context: ServiceContext,
    elector: LeaderElector,
    informers: Sequence[Informer[Any]],
    lead: Callable[[], Awaitable[None]],
) -> None:
    """Runs until the process is asked to stop; ``lead`` runs while this process holds the elector's Lease.

    Ready once the first lists are in, whoever leads.
    """
    context.health.add_check("caches", lambda: all(informer.has_synced.is_set() for informer in informers))
    async with asyncio.TaskGroup() as group:
        following = [group.create_task(informer.run()) for informer in informers]
        # What is stopped before it has begun has nothing to end.
        await run_unless(context.stopping, _wait_synced(informers))
        await elector.run(lead, context.stopping)
        for task in following:
            task.cancel()


async def _wait_synced(informers: Sequence[Informer[Any]]) -> None:
    for informer in informers:
        await informer.wait_synced()


class Term(Protocol):
    """What works while this process leads; it begins and ends with the Lease."""

    async def run(self) -> None: ...

    def look_again(self) -> None:
        """Finds out about everything unfinished, because the broker may have lost what was published."""
        ...


T = TypeVar("T", bound=Term)


class Leadership(Generic[T]):
    """A controller whose terms come and go, while informers and handlers stay registered once."""

    def __init__(
        self, context: ServiceContext, name: str, informers: Sequence[Informer[Any]], build_term: Callable[[], T]
    ) -> None:
        self._context = context
        self._elector = build_elector(context, name)
        self._informers = informers
        self._build_term = build_term
        self._term: T | None = None
        context.bus.on_topology_lost(lambda _: self.tell(_look_again))
        context.bus.on_reconnect(lambda: self.tell(_look_again))

    def tell(self, act: Callable[[T], None]) -> None:
        """Calls ``act`` with the present term; does nothing while another process leads."""
        if self._term is not None:
            act(self._term)

    def is_certain(self) -> bool:
        """True while nobody else can be leading."""
        return self._elector.is_certain()

    async def run(self) -> None:
        """Runs until the process is asked to stop."""
        await run_led(self._context, self._elector, self._informers, self._lead)

    async def _lead(self) -> None:
        self._term = self._build_term()
        try:
            await self._term.run()
        finally:
            self._term = None


def _look_again(term: Term) -> None:
    term.look_again()
