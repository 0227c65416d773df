"""The parts of the service and how they hang together.

ContactChannel informer --+--> ValidatedKind (leader)                Secret watch --+--> ValidatedKind (leader)
                          +--> ConsumerSets (every replica)                         +--> ChannelAccess: requests
                          +--> ConsumerCleanup, AnswerSchedule (leader)                  in trouble look again
                          +--> SecretWatcher: which Secrets are referred to
WaitingCalls -------------+--> AnswerChecker, HumanLayerHook, InboxPage (every replica), AnswerSchedule (leader)
AnswerRoads: links, Slack and callbacks of webhooks (every replica); its links go into requests
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp

from kubechain_common.api.v1alpha1 import ContactChannel
from kubechain_common.api.v1alpha1.status import ReadinessStatus
from kubechain_common.kube.controller import Controller
from kubechain_common.kube.informer import Change, Informer
from kubechain_common.kube.lease import LeaderElector
from kubechain_common.kube.secrets import SecretWatcher
from kubechain_common.kube.status_writer import write_status
from kubechain_common.messages.human import AnswerCheck, HumanRequest
from kubechain_common.messages.topology import answer_check_consumer, human_consumer
from kubechain_common.messaging.consumer import Consumer
from kubechain_common.runtime.clock import now
from kubechain_common.runtime.consumer_cleanup import ConsumerCleanup
from kubechain_common.runtime.consumer_set import ConsumerSet
from kubechain_common.runtime.service import ServiceContext
from kubechain_common.runtime.validated_kind import ValidatedKind
from kubechain_common.runtime.waiting import run_unless
from kubechain_human_bridge.answer_roads import AnswerRoads
from kubechain_human_bridge.answers.answers import Answers
from kubechain_human_bridge.answers.checks import AnswerChecker
from kubechain_human_bridge.answers.lookup import AnswerLookup
from kubechain_human_bridge.answers.schedule import AnswerSchedule
from kubechain_human_bridge.asking.request_worker import RequestWorker
from kubechain_human_bridge.audit import Refusal
from kubechain_human_bridge.channels.base import Channel
from kubechain_human_bridge.channels.registry import build_channel, is_polled
from kubechain_human_bridge.contactchannels.access import ChannelAccess
from kubechain_human_bridge.contactchannels.secrets import secrets_of
from kubechain_human_bridge.contactchannels.validation import GREETING, ChannelValidation
from kubechain_human_bridge.settings import BridgeSettings
from kubechain_human_bridge.waiting_calls import WaitingCalls
from kubechain_human_bridge.web.app import build_app, serve
from kubechain_human_bridge.web.humanlayer_hook import HumanLayerHook
from kubechain_human_bridge.web.inbox.page import InboxPage

LEASE = "kubechain-human-bridge"
CHECKS_AT_ONCE = 8
ASKS_AT_ONCE = 32
"""Requests to one channel that are being sent at a time."""
REQUESTS_IN_HAND = 1024
"""Requests to one channel that are sent or wait here, for their turn or for their next attempt.

One that is refused waits for minutes, so it takes many of them to keep others from being sent. But each costs some 10
KiB and a heartbeat every three seconds; it asks the API server again with each attempt, once a minute where a channel
is away; and the consumer remembers eight times as many that were dealt with, in 2 MB.
"""

_DRAIN_MARGIN = 2.0
"""Seconds of the drain that are left to hand the lease over and flush events."""

_BY_SECRET = "secret"
_BY_UID = "uid"


class Bridge:
    """One replica of human-bridge."""

    def __init__(self, ctx: ServiceContext, settings: BridgeSettings) -> None:
        self._ctx = ctx
        self._settings = settings
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        namespace = ctx.settings.watch_namespace
        self._channels = Informer(
            ctx.kube,
            ContactChannel,
            namespace=namespace,
            indexers={_BY_SECRET: _index_secrets, _BY_UID: _index_uid},
        )
        self._waiting = WaitingCalls(ctx.kube, namespace)
        self._secrets = SecretWatcher(ctx.kube)
        self._access = ChannelAccess(self._channels, self._secrets, self._build_channel)
        self._roads = AnswerRoads(
            ctx, settings, self._session, self._access, self._secrets, self._channels.has_synced.is_set
        )
        answers = Answers(ctx.kube)
        self._page = InboxPage(
            ctx.kube,
            calls=self._waiting.informer,
            answers=answers,
            audit=self._roads.audit,
            signing_key=lambda: self._roads.key.current.encode(),
            public_url=settings.public_url,
        )
        lookup = AnswerLookup(self._access, answers)
        self._worker = RequestWorker(
            ctx.bus, ctx.bus.started_calls, ctx.kube, self._access, self._roads.links, ctx.stopping
        )
        self._checker = AnswerChecker(ctx.kube, self._waiting, self._access, lookup)
        self._hook = HumanLayerHook(ctx.kube, self._waiting, self._access, lookup, self._refuse)
        self._requests = ConsumerSet(lambda: [c.uid for c in self._channels.list()], self._consume_requests)
        self._checks = ConsumerSet(
            lambda: [c.uid for c in self._channels.list() if is_polled(c.spec)], self._consume_checks
        )
        self._schedule = AnswerSchedule(ctx.bus, ctx.kube, self._waiting, self._access)
        self._cleanup = ConsumerCleanup(
            ctx.bus, lambda uid: [human_consumer(uid), answer_check_consumer(uid)], self._exists
        )
        self._reconciling: Controller | None = None
        self._channels.add_handler(self._handle_channel_change)
        self._secrets.add_handler(self._handle_secret_change)
        ctx.bus.on_topology_lost(lambda _: self._schedule.look_again())
        ctx.bus.on_reconnect(self._schedule.look_again)
        ctx.health.add_check("channel-informer", self._channels.has_synced.is_set)
        ctx.health.add_check("call-informer", self._waiting.informer.has_synced.is_set)
        # Known, not there: a key that somebody deletes comes back by itself.
        ctx.health.add_check("link-key", lambda: self._roads.key.known)

    async def run(self) -> None:
        """Serve until the context says stop; requests under way end first."""
        ctx, settings = self._ctx, self._settings
        elector = LeaderElector(ctx.kube, namespace=ctx.settings.namespace, name=LEASE, identity=ctx.identity)
        try:
            async with asyncio.TaskGroup() as watching:
                followers = (self._channels, self._secrets, self._waiting, self._roads)
                watches = [watching.create_task(follower.run()) for follower in followers]
                app = build_app(self._page.routes(), self._roads.routes(), self._hook.build_routes())
                async with serve(app, settings.host, settings.port), asyncio.TaskGroup() as working:
                    working.create_task(elector.run(self._lead, ctx.stopping))
                    working.create_task(self._ask(ctx.stopping))
                    working.create_task(self._checks.run(ctx.stopping))
                for watch in watches:
                    watch.cancel()
        finally:
            await self._access.aclose()
            await self._session.close()

    def _build_channel(self, channel: ContactChannel, secrets: Mapping[str, str]) -> Channel:
        return build_channel(channel, secrets, self._settings, self._session, self._roads.tokens)

    def _exists(self, uid: str) -> bool:
        return bool(self._channels.by_index(_BY_UID, uid))

    def _refuse(self, channel: ContactChannel, reason: str, why: str) -> None:
        self._roads.audit.refused_channel(channel, Refusal("humanlayer", reason, why))

    # --- leading ---

    async def _lead(self) -> None:
        await self._channels.wait_synced()
        await self._waiting.informer.wait_synced()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reconcile_channels())
            group.create_task(self._cleanup.lead())
            group.create_task(self._schedule.lead())

    async def _reconcile_channels(self) -> None:
        events = self._ctx.recorder.for_component("contactchannel-controller")
        validation = ChannelValidation(self._access, self._write_status)
        reconciler = ValidatedKind(self._channels.get, validation, events, now, greeting=GREETING)
        controller = Controller("contactchannel", reconciler.reconcile)
        for channel in self._channels.list():
            controller.queue.add(channel.key)
        self._reconciling = controller
        try:
            await controller.run()
        finally:
            self._reconciling = None

    async def _write_status(self, channel: ContactChannel, status: ReadinessStatus) -> ContactChannel:
        return await write_status(self._ctx.kube, self._channels, channel, status)

    # --- what changes set off ---

    def _handle_channel_change(self, change: Change[ContactChannel]) -> None:
        channel = change.obj
        if change.kind == "deleted":
            self._secrets.set_references(channel.uid, set())
            self._cleanup.note_deleted(channel.namespace, channel.uid)
        else:
            self._secrets.set_references(channel.uid, secrets_of(channel))
        if _is_news(change):
            self._access.notify_changed()
            self._requests.notify_changed()
            self._checks.notify_changed()
        if change.kind == "added":
            self._schedule.look_again()
        if self._reconciling is not None:
            self._reconciling.queue.add(channel.key)

    def _handle_secret_change(self, namespace: str, name: str) -> None:
        self._access.notify_changed()
        if self._reconciling is not None:
            for channel in self._channels.by_index(_BY_SECRET, _secret_index(namespace, name)):
                self._reconciling.queue.add(channel.key)

    # --- requests and checks ---

    async def _ask(self, stopping: asyncio.Event) -> None:
        await run_unless(stopping, self._roads.wait_ready())
        await self._requests.run(stopping)

    async def _consume_requests(self, uid: str, stopping: asyncio.Event) -> None:
        """Takes the requests to one channel; its client goes with it."""
        turns = asyncio.Semaphore(ASKS_AT_ONCE)
        consumer = Consumer(
            self._ctx.bus,
            human_consumer(uid),
            HumanRequest,
            lambda delivery: self._worker.handle_request(delivery, turns),
            concurrency=REQUESTS_IN_HAND,
            on_poison=self._worker.handle_poison,
            grace=self._grace,
        )
        try:
            await consumer.run(stopping)
        finally:
            if not self._exists(uid):
                await self._access.forget(uid)

    async def _consume_checks(self, uid: str, stopping: asyncio.Event) -> None:
        """Takes the checks of one channel."""
        consumer = Consumer(
            self._ctx.bus,
            answer_check_consumer(uid),
            AnswerCheck,
            self._checker.handle_check,
            concurrency=CHECKS_AT_ONCE,
            grace=self._grace,
        )
        await consumer.run(stopping)

    @property
    def _grace(self) -> float:
        return max(0.5, self._ctx.settings.drain_seconds - _DRAIN_MARGIN)


def _is_news(change: Change[ContactChannel]) -> bool:
    """Whether there is more to it than our own status."""
    old, new = change.old, change.new
    return old is None or new is None or old.metadata.generation != new.metadata.generation


def _secret_index(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"


def _index_secrets(channel: ContactChannel) -> list[str]:
    return [_secret_index(*secret) for secret in secrets_of(channel)]


def _index_uid(channel: ContactChannel) -> list[str]:
    return [channel.uid]
