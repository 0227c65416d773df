"""EventRecorder: tells people what happened, in ``kubectl describe`` and ``kubectl get events``.

``event`` only puts into memory; two workers write. Events are best effort and never in the way of the work. To the API
server an Event is a write like any other, and a Task has as many Events as other writes. So each waits a second, in
which its repeats are counted rather than written, and then gives way to writes of state for some more: a burst of Tasks
is told of after it was done, quickly then, and slowly while the work does not end. The queue is bounded, and what the
API server refuses (the namespace is being deleted, RBAC) is dropped. While it is away they wait.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.kube.backoff import Backoff
from kubechain_common.kube.client import MERGE_PATCH, KubeClient
from kubechain_common.kube.errors import AlreadyExistsError, GoneError, KubeError, NotFoundError, UnavailableError
from kubechain_common.kube.event_queue import EventQueue, EventType, PendingEvent, build_event, identity_of
from kubechain_common.kube.metrics import EVENTS_DROPPED
from kubechain_common.kube.paths import core_path
from kubechain_common.telemetry.logging import get_logger

log = get_logger(__name__)

_WORKERS = 2
_CAPACITY = 10_000
_MAX_KNOWN = 4096
_PAGE = 200
_MAX_ATTEMPTS = 20
_LINGER = timedelta(seconds=1)
_QUIET = 0.05
"""Seconds without a write of state after which Events are not in the way."""
_PATIENCE = timedelta(seconds=10)
"""The age at which an Event no longer gives way."""
_INTERVAL_QUIET = 0.01
_INTERVAL_BUSY = 0.04
"""Seconds between two writes of one worker."""

Clock = Callable[[], datetime]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class EventRecorder:
    """Records Events in the name of one component; ``for_component`` gives views that share queue and workers."""

    def __init__(self, client: KubeClient, component: str, *, now: Clock = _utc_now) -> None:
        self._component = component
        self._writer = EventWriter(client, now)

    def for_component(self, component: str) -> EventRecorder:
        """The same recorder speaking as ``component``."""
        view = EventRecorder.__new__(EventRecorder)
        view._component = component
        view._writer = self._writer
        return view

    def event(self, obj: Resource, event_type: EventType, reason: str, message: str) -> None:
        """Records an Event about ``obj``; returns at once. ``reason`` is one CamelCase word, ``message`` a sentence."""
        self._writer.put(build_event(obj, self._component, event_type, reason, message, self._writer.now()))

    async def run(self) -> None:
        """Writes what was recorded, until cancelled."""
        await self._writer.run()

    async def flush(self, timeout: float) -> bool:
        """Waits up to ``timeout`` seconds until all is written; False when something is left. Needs ``run``."""
        return await self._writer.flush(timeout)


@dataclass(frozen=True, slots=True)
class KnownEvent:
    """An Event that the API server has."""

    name: str
    count: int


class EventWriter:
    """Writes Events, each identity always by the same worker, so that two writes of one Event never race.

    What was said before this process started is read once for a namespace, so that counts go on over restarts; not for
    each object, for to find those of one the API server reads all of the namespace.
    """

    def __init__(self, client: KubeClient, now: Clock) -> None:
        self.now = now
        self._client = client
        self._queues = [EventQueue(_CAPACITY // _WORKERS) for _ in range(_WORKERS)]
        self._filled = [asyncio.Event() for _ in range(_WORKERS)]
        self._started = now()
        self._known: OrderedDict[bytes, KnownEvent] = OrderedDict()
        self._read: set[tuple[str, str]] = set()
        self._reading = asyncio.Lock()
        self._unwritten = 0
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, event: PendingEvent) -> None:
        worker = hash(event.identity) % len(self._queues)
        if not self._queues[worker].put(event):
            EVENTS_DROPPED.inc()
        self._filled[worker].set()
        self._idle.clear()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for queue, filled in zip(self._queues, self._filled, strict=True):
                group.create_task(self._work(queue, filled))

    async def flush(self, timeout: float) -> bool:
        self._hurry.set()
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        finally:
            self._hurry.clear()
        return True

    async def _work(self, queue: EventQueue, filled: asyncio.Event) -> None:
        while True:
            await filled.wait()
            while (first := queue.peek()) is not None:
                await self._pause(self._rest_of(_LINGER, first))
                await self._give_way(self._rest_of(_PATIENCE, first))
                await self._write_next(queue)
                await self._pause(_INTERVAL_BUSY if self._in_the_way() else _INTERVAL_QUIET)
            filled.clear()
            if not self._unwritten and not any(self._queues):
                self._idle.set()

    def _rest_of(self, wait: timedelta, event: PendingEvent) -> float:
        """The seconds of ``wait`` that are left for the event; at most all of them, because the clock may have been set
        back.
        """
        return min(event.first + wait - self.now(), wait).total_seconds()

    async def _give_way(self, seconds: float) -> None:
        """Waits while state is being written, but not longer than so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._in_the_way() and not self._hurry.is_set():
                    await self._pause(_QUIET)

    def _in_the_way(self) -> bool:
        return self._client.activity.quiet_for() < _QUIET

    async def _pause(self, seconds: float) -> None:
        """Sleeps for so many seconds, or until ``flush`` waits."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    async def _write_next(self, queue: EventQueue) -> None:
        event = queue.take()
        if event is None:
            return
        self._unwritten += 1
        try:
            await self._write_patiently(event)
        finally:
            self._unwritten -= 1

    async def _write_patiently(self, event: PendingEvent) -> None:
        """Writes the event, waiting while the API server is away; gives up on one that is refused."""
        backoff, refusals = Backoff(0.1, 5.0), 0
        while refusals < _MAX_ATTEMPTS:
            try:
                await self._write(event)
            except KubeError as error:
                refusals += not isinstance(error, UnavailableError)
                if not error.retryable:
                    log.debug("event refused", event_name=event.name, namespace=event.namespace, error=str(error))
                    break
                await asyncio.sleep(max(error.retry_after or 0.0, backoff.next()))
            else:
                return
        EVENTS_DROPPED.inc()

    async def _write(self, event: PendingEvent) -> None:
        if event.identity not in self._known and self._may_be_known(event):
            await self._read_known(event)
        known = self._known.get(event.identity)
        if known is None:
            await self._create(event)
            return
        try:
            await self._bump(event, known)
        except NotFoundError:  # the API server forgets Events after an hour
            self._known.pop(event.identity, None)  # unless it was crowded out meanwhile
            await self._create(event)

    def _may_be_known(self, event: PendingEvent) -> bool:
        created = event.object_created
        return created is None or created <= self._started

    async def _read_known(self, event: PendingEvent) -> None:
        async with self._reading:
            if (event.namespace, event.component) in self._read:
                return
            with suppress(GoneError):  # there are so many that the list grew too old: what was read will do
                await self._read_pages(core_path("events", event.namespace), f"source={event.component}")
            self._read.add((event.namespace, event.component))

    async def _read_pages(self, path: str, field_selector: str) -> None:
        token = ""
        while True:
            page = await self._client.list_page(path, limit=_PAGE, continue_token=token, field_selector=field_selector)
            for existing in page.items:
                if identity_of(existing) not in self._known:
                    self._remember(existing)
            if not (token := page.continue_token):
                return

    async def _create(self, event: PendingEvent) -> None:
        with suppress(AlreadyExistsError):  # a create whose answer was lost
            path = core_path("events", event.namespace)
            self._remember(await self._client.request("POST", path, body=event.build_new()))

    async def _bump(self, event: PendingEvent, known: KnownEvent) -> None:
        path = core_path("events", event.namespace, known.name)
        body = event.build_bump(known.count)
        self._remember(await self._client.request("PATCH", path, body=body, content_type=MERGE_PATCH))

    def _remember(self, written: dict[str, Any]) -> None:
        identity = identity_of(written)
        self._known[identity] = KnownEvent(written["metadata"]["name"], int(written.get("count") or 1))
        self._known.move_to_end(identity)
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
