"""The life of a service process.

Health endpoint first, then the API server and NATS, however long they take; then the service's own ``start``, which
runs until ``stopping`` is set and returns once its work in hand is done. The first SIGTERM (or SIGINT) sets
``stopping`` and starts the clock: what is not done after ``drain_seconds`` is cancelled. The second ends the process
on the spot. When anything that belongs to the service fails for good the process ends with code 1 and says why;
whoever supervises it starts it again, and it carries on from the CRs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.event_recorder import EventRecorder
from kubechain_common.messages.topology import StreamSpec
from kubechain_common.messaging.bus import Bus
from kubechain_common.runtime.backlog import BacklogFigures
from kubechain_common.runtime.health import Health
from kubechain_common.runtime.huge_pages import use_huge_pages
from kubechain_common.runtime.kube_check import KubeCheck
from kubechain_common.runtime.settings import ServiceSettings
from kubechain_common.telemetry.logging import configure_logging, get_logger
from kubechain_common.telemetry.tracing import configure_tracing, shutdown_tracing

_FLUSH_SECONDS = 2.0
_SETTLED_SECONDS = 2.0

_log = get_logger(__name__)


@dataclass
class ServiceContext:
    """What a service is given to work with."""

    settings: ServiceSettings
    kube: KubeClient
    bus: Bus
    recorder: EventRecorder
    health: Health
    stopping: asyncio.Event
    identity: str


Start = Callable[[ServiceContext], Awaitable[None]]


def run_service(name: str, start: Start, *, takes_from: Sequence[StreamSpec] = ()) -> None:
    """Run the service and end the process: code 0 after an orderly stop, 1 after a failure, 2 for wrong settings.

    ``name`` is the short one (``task-controller``); ``start`` runs until ``ctx.stopping`` is set, then drains and
    returns. ``takes_from``: the streams whose backlog the metrics tell.
    """
    settings = _load_settings()
    configure_logging(name, settings.log_level, settings.log_format)
    configure_tracing(name)
    service = _Service(name, start, settings, takes_from)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            code = runner.run(service.run())
    finally:
        shutdown_tracing()
    sys.exit(code)


class _Service:
    """One run of one service."""

    def __init__(self, name: str, start: Start, settings: ServiceSettings, takes_from: Sequence[StreamSpec]) -> None:
        self._name = name
        self._takes_from = takes_from
        self._start = start
        self._settings = settings
        self._stopping: asyncio.Event
        self._main: asyncio.Task[Any] | None = None
        self._started = False

    async def run(self) -> int:
        """The exit code."""
        self._stopping = asyncio.Event()
        self._main = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._handle_signal, number)
        try:
            await self._serve()
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
        except Exception as error:
            for leaf in _leaves(error):
                _log.critical("service failed", reason=f"{type(leaf).__name__}: {leaf}", exc_info=leaf)
            return 1
        if not self._stopping.is_set():
            _log.critical("service failed", reason="it ended without having been asked to")
            return 1
        _log.info("stopped")
        return 0

    def _handle_signal(self, number: int) -> None:
        if self._stopping.is_set():
            _log.warning("second signal: ending at once", signal=signal.Signals(number).name)
            os._exit(128 + number)
        _log.info("stopping", signal=signal.Signals(number).name)
        self._stopping.set()
        if not self._started and self._main is not None:
            self._main.cancel()  # nothing is in hand yet: no need to wait for connections

    async def _serve(self) -> None:
        settings, health = self._settings, Health()
        health.add_check("started", lambda: self._started)
        health.add_check("not draining", lambda: not self._stopping.is_set())
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(health.serve(settings.http_host, settings.http_port))
            kube = await stack.enter_async_context(KubeClient.connect(f"kubechain-{self._name}"))
            await kube.wait_until_ready()
            health.add_check("kube", KubeCheck(kube))
            bus = await stack.enter_async_context(
                Bus.connect(settings.nats_url, f"kubechain-{self._name}", settings.bus_access())
            )
            health.add_check("bus", lambda: bus.connected)
            health.add_figures(BacklogFigures(bus, self._takes_from).refresh)
            recorder = EventRecorder(kube, self._name)
            context = ServiceContext(settings, kube, bus, recorder, health, self._stopping, settings.identity())
            await self._run_started(context)

    async def _run_started(self, context: ServiceContext) -> None:
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(context.recorder.run()),
                group.create_task(self._enforce_drain_deadline()),
                group.create_task(_settle()),
            ]
            self._started = True
            _log.info("started", identity=context.identity)
            await self._start(context)
            await context.recorder.flush(_FLUSH_SECONDS)
            for task in background:
                task.cancel()

    async def _enforce_drain_deadline(self) -> None:
        await self._stopping.wait()
        await asyncio.sleep(self._settings.drain_seconds)
        _log.warning("not drained in time: cancelling what is left", seconds=self._settings.drain_seconds)
        if self._main is not None:
            self._main.cancel()


async def _settle() -> None:
    await asyncio.sleep(_SETTLED_SECONDS)
    await use_huge_pages()


def _load_settings() -> ServiceSettings:
    try:
        return ServiceSettings()
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            name = "".join(f"KUBECHAIN_{part}: ".upper() for part in problem["loc"])
            print(f"{name}{problem['msg']}", file=sys.stderr)
        sys.exit(2)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
