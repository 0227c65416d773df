"""The parts of the service and how they hang together.

LLM informer --+--> ValidatedKind (leader)          Secret watch --+--> ValidatedKind (leader)
               +--> ConsumerSet: LLMConsumers (every replica)      +--> LLMAccess: waiting calls look again
               +--> ConsumerCleanup (leader)
               +--> SecretWatcher: which Secrets are referred to
"""

from __future__ import annotations

import asyncio

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.status import ReadinessStatus
from kubechain_common.kube.controller import Controller
from kubechain_common.kube.heap import Burst
from kubechain_common.kube.informer import Change, Informer
from kubechain_common.kube.lease import LeaderElector
from kubechain_common.kube.secrets import SecretWatcher
from kubechain_common.kube.status_writer import write_status
from kubechain_common.kube.text_cache import TextCache
from kubechain_common.kube.window_reader import WindowReader
from kubechain_common.messages import LLMRequest
from kubechain_common.messages.topology import ANY, llm_consumer, llm_listening_subject
from kubechain_common.messaging.delivery import Delivery
from kubechain_common.runtime.clock import epoch, now
from kubechain_common.runtime.consumer_cleanup import ConsumerCleanup
from kubechain_common.runtime.consumer_set import ConsumerSet
from kubechain_common.runtime.service import ServiceContext
from kubechain_common.runtime.validated_kind import ValidatedKind
from kubechain_llm_gateway.admission.admission import Admission
from kubechain_llm_gateway.admission.fallback import names_of_fallbacks
from kubechain_llm_gateway.admission.fallback_calls import FallbackCalls
from kubechain_llm_gateway.admission.health_board import HealthBoard
from kubechain_llm_gateway.admission.metering import Meter
from kubechain_llm_gateway.admission.metrics import forget_metrics, show_health
from kubechain_llm_gateway.admission.probing import Prober
from kubechain_llm_gateway.admission.rate_limiter import RateLimiter
from kubechain_llm_gateway.calls.consumers import LLMConsumers
from kubechain_llm_gateway.calls.deltas import DeltaFeed
from kubechain_llm_gateway.calls.request_worker import RequestWorker
from kubechain_llm_gateway.calls.task_probe import TaskProbe
from kubechain_llm_gateway.llm_validation import LLMValidation
from kubechain_llm_gateway.llms.access import LLMAccess
from kubechain_llm_gateway.llms.credentials import secret_of
from kubechain_llm_gateway.providers.registry import ProviderRegistry

LEASE = "kubechain-llm-gateway"
CACHED_BYTES = 64 * 1024 * 1024
"""Bytes of conversations under way that are cached; what is not there is read from the API server."""

_DRAIN_MARGIN = 2.0
"""Seconds of the drain that are left to hand the lease over and flush events."""

_BY_SECRET = "secret"
_BY_UID = "uid"
_BY_FALLBACK = "fallback"


class Gateway:
    """One replica of llm-gateway."""

    def __init__(self, ctx: ServiceContext) -> None:
        self._ctx = ctx
        self._llms = Informer(
            ctx.kube,
            LLM,
            namespace=ctx.settings.watch_namespace,
            indexers={_BY_SECRET: _index_secret, _BY_UID: _index_uid, _BY_FALLBACK: _index_fallbacks},
        )
        self._secrets = SecretWatcher(ctx.kube)
        self._registry = ProviderRegistry()
        self._access = LLMAccess(self._llms, self._secrets, self._registry)
        conversations = WindowReader(ctx.kube, TextCache(CACHED_BYTES))
        self._board = HealthBoard(ctx.bus.shared)
        meter = Meter(RateLimiter(ctx.bus.shared, epoch), self._find_llm, epoch, ctx.stopping)
        self._admission = Admission(self._board, meter, self._find_llm, ctx.stopping)
        self._prober = Prober(self._board, self._find_llm, self._access)
        self._burst = Burst()
        self._deltas = DeltaFeed(ctx.bus.live)
        self._fallbacks = FallbackCalls(self._llms, self._admission)
        self._worker = RequestWorker(
            ctx.bus,
            self._access,
            self._admission,
            self._fallbacks,
            TaskProbe(ctx.bus, ctx.kube),
            conversations,
            ctx.stopping,
            drafts=self._deltas,
        )
        self._requests = LLMConsumers(
            ctx.bus,
            self._find_llm,
            self._registry,
            self._handle_request,
            grace=max(0.5, ctx.settings.drain_seconds - _DRAIN_MARGIN),
        )
        self._consumers = ConsumerSet(lambda: [llm.uid for llm in self._llms.list()], self._requests.consume)
        self._cleanup = ConsumerCleanup(
            ctx.bus, lambda uid: [llm_consumer(uid)], lambda uid: self._find_llm(uid) is not None
        )
        self._reconciling: Controller | None = None
        self._llms.add_handler(self._handle_llm_change)
        self._board.add_handler(self._handle_health_change)
        self._secrets.add_handler(self._handle_secret_change)
        ctx.health.add_check("llm-informer", self._llms.has_synced.is_set)

    async def run(self) -> None:
        """Serve until the context says stop; calls under way end first."""
        ctx = self._ctx
        unregister = (
            ctx.bus.on_reconnect(self._board.look_at_all),
            ctx.bus.on_topology_lost(lambda _: self._board.look_at_all()),
        )
        elector = LeaderElector(ctx.kube, namespace=ctx.settings.namespace, name=LEASE, identity=ctx.identity)
        try:
            async with asyncio.TaskGroup() as watching:
                watches = [
                    watching.create_task(run())
                    for run in (self._llms.run, self._secrets.run, self._board.run, self._probe, self._tell_deltas)
                ]
                async with asyncio.TaskGroup() as working:
                    working.create_task(elector.run(self._lead, ctx.stopping))
                    working.create_task(self._consumers.run(ctx.stopping))
                for watch in watches:
                    watch.cancel()
        finally:
            for end in unregister:
                end()
            await self._registry.aclose()

    async def _handle_request(self, delivery: Delivery[LLMRequest]) -> None:
        with self._burst.work():
            await self._worker.handle_request(delivery)

    async def _probe(self) -> None:
        await self._llms.wait_synced()  # whose provider is unavailable may be known before the LLM is
        await self._prober.run()

    # --- leading ---

    async def _lead(self) -> None:
        await self._llms.wait_synced()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reconcile_llms())
            group.create_task(self._cleanup.lead())

    async def _reconcile_llms(self) -> None:
        events = self._ctx.recorder.for_component("llm-controller")
        validation = LLMValidation(self._access, self._board, self._fallbacks, self._write_status)
        reconciler = ValidatedKind(self._llms.get, validation, events, now)
        controller = Controller("llm", reconciler.reconcile)
        for llm in self._llms.list():
            controller.queue.add(llm.key)
        self._reconciling = controller
        try:
            await controller.run()
        finally:
            self._reconciling = None

    async def _write_status(self, llm: LLM, status: ReadinessStatus) -> LLM:
        return await write_status(self._ctx.kube, self._llms, llm, status)

    # --- what changes set off ---

    def _handle_llm_change(self, change: Change[LLM]) -> None:
        llm = change.obj
        if change.kind == "deleted":
            self._secrets.set_references(llm.uid, set())
            self._access.forget(llm.uid)
            self._admission.forget(llm)
            self._fallbacks.forget(llm.uid)
            forget_metrics(llm)
            self._cleanup.note_deleted(llm.namespace, llm.uid)
        else:
            secret = secret_of(llm)
            self._secrets.set_references(llm.uid, {secret} if secret else set())
            self._access.notify_changed()
            self._requests.handle_change(llm)
            self._admission.handle_change(llm)
            show_health(llm, self._board.get(llm.uid))
        if change.kind == "added" and self._llms.has_synced.is_set():
            self._board.look_at(llm.uid)
        if change.kind != "modified":
            self._consumers.notify_changed()
        self._reconcile(llm)

    def _handle_health_change(self, uid: str) -> None:
        llm = self._find_llm(uid)
        if llm is None:
            return
        show_health(llm, self._board.get(uid))
        self._reconcile(llm)

    def _reconcile(self, llm: LLM) -> None:
        """Has the LLM reconciled, and those whose fallback it is."""
        if self._reconciling is None:
            return
        self._reconciling.queue.add(llm.key)
        for other in self._llms.by_index(_BY_FALLBACK, _name_index(*llm.key)):
            self._reconciling.queue.add(other.key)

    def _handle_secret_change(self, namespace: str, name: str) -> None:
        self._access.notify_changed()
        if self._reconciling is not None:
            for llm in self._llms.by_index(_BY_SECRET, _name_index(namespace, name)):
                self._reconciling.queue.add(llm.key)

    def _find_llm(self, uid: str) -> LLM | None:
        return next(iter(self._llms.by_index(_BY_UID, uid)), None)

    async def _tell_deltas(self) -> None:
        async with self._ctx.bus.live.hear(llm_listening_subject(ANY, ANY), self._deltas.handle_listening):
            await self._deltas.run()


def _name_index(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"


def _index_secret(llm: LLM) -> list[str]:
    secret = secret_of(llm)
    return [_name_index(*secret)] if secret else []


def _index_fallbacks(llm: LLM) -> list[str]:
    return [_name_index(llm.namespace, name) for name in names_of_fallbacks(llm)]


def _index_uid(llm: LLM) -> list[str]:
    return [llm.uid]
