"""The consumers of requests, one per LLM, on every replica.

Shared by all replicas, so that the LLM's ``maxConcurrency`` holds over all of them: it is the consumer's own limit of
messages that are not acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.messages import LLMRequest
from kubechain_common.messages.topology import LLM_MAX_IN_FLIGHT, llm_consumer
from kubechain_common.messaging.bus import Bus
from kubechain_common.messaging.consumer import Consumer, Handler
from kubechain_common.messaging.delivery import Poison
from kubechain_llm_gateway.calls.results import build_poison_result, result_subject
from kubechain_llm_gateway.llms.concurrency import concurrency_of
from kubechain_llm_gateway.providers.registry import ProviderRegistry


class LLMConsumers:
    """The consumers that run in this process, with the limits that they run with."""

    def __init__(
        self,
        bus: Bus,
        find: Callable[[str], LLM | None],
        registry: ProviderRegistry,
        handler: Handler[LLMRequest],
        *,
        grace: float,
    ) -> None:
        self._bus = bus
        self._find = find
        self._registry = registry
        self._handler = handler
        self._grace = grace
        self._running: dict[str, tuple[Consumer[LLMRequest], int]] = {}

    async def consume(self, uid: str, stopping: asyncio.Event) -> None:
        """Takes the requests of one LLM. Its SDK is imported first, so that the first call need not wait for that."""
        llm = self._find(uid)
        if llm is not None:
            await self._registry.preload(llm.spec)
            llm = self._find(uid)
        limit = concurrency_of(llm) if llm is not None else LLM_MAX_IN_FLIGHT
        consumer = Consumer(
            self._bus,
            llm_consumer(uid, limit),
            LLMRequest,
            self._handler,
            concurrency=limit,
            on_poison=self._handle_poison,
            grace=self._grace,
        )
        self._running[uid] = consumer, limit
        try:
            await consumer.run(stopping)
        finally:
            del self._running[uid]

    def handle_change(self, llm: LLM) -> None:
        """Takes the limit of an edited LLM. It holds for calls that start from now on; running ones go on."""
        consumer, limit = self._running.get(llm.uid, (None, 0))
        if consumer is not None and limit != concurrency_of(llm):
            self._running[llm.uid] = consumer, concurrency_of(llm)
            consumer.set_concurrency(concurrency_of(llm))

    async def _handle_poison(self, poison: Poison) -> None:
        result = build_poison_result(poison)
        if result is not None:
            await self._bus.publish(result_subject(result), result, msg_id=None, trace=poison.trace)
