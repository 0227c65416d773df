"""The four services as they start in production, over the model's API server, NATS, model and tools.

Everything between the wires is the real thing: ``start`` of each service, its informers, workqueues, consumers, workers
and reconcilers. Replaced are only the elector (the model says who leads), the provider's client and the connections to
MCP servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import structlog
from tests.model.effects import PROCESS
from tests.model.outside import ModelProvider, ModelSession, Outside

import kubechain_llm_gateway.gateway as gateway_module
import kubechain_mcp_host.__main__ as host_module
import kubechain_task_controller.__main__ as task_module
import kubechain_toolcall_controller.__main__ as toolcall_module
from kubechain_common.api.v1alpha1 import MCPServer
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import KubeError
from kubechain_common.kube.informer import Change
from kubechain_common.messaging import beat as beat_module
from kubechain_common.messaging import connection as connection_module
from kubechain_common.messaging import consumer as consumer_module
from kubechain_common.messaging.bus import Bus
from kubechain_common.messaging.errors import MessagingError
from kubechain_common.runtime import clock as clock_module
from kubechain_common.runtime import leadership as leadership_module
from kubechain_common.runtime.service import ServiceContext
from kubechain_mcp_host.stdio.launch import StdioLauncher

TASK_CONTROLLER, TOOLCALL_CONTROLLER = "task-controller", "toolcall-controller"
LLM_GATEWAY, MCP_HOST = "llm-gateway", "mcp-host"
SERVICES = (TASK_CONTROLLER, TOOLCALL_CONTROLLER, LLM_GATEWAY, MCP_HOST)
LED = (TASK_CONTROLLER, TOOLCALL_CONTROLLER)


async def run_process(service: str, kube: KubeClient, world: Any) -> None:
    """One run of a service, until it is cancelled."""
    async with Bus.connect("nats://model", service) as bus:
        settings = SimpleNamespace(
            watch_namespace="", namespace="kubechain", drain_seconds=20.0, nats_url="nats://model"
        )
        health = SimpleNamespace(add_check=lambda name, check: None)
        context = ServiceContext(
            cast("Any", settings), kube, bus, cast("Any", Recorder()), cast("Any", health), asyncio.Event(), service
        )
        starts: dict[str, Callable[[ServiceContext], Awaitable[None]]] = {
            TASK_CONTROLLER: task_module.start,
            TOOLCALL_CONTROLLER: toolcall_module.start,
            LLM_GATEWAY: lambda c: gateway_module.Gateway(c).run(),
            MCP_HOST: host_module.start,
        }
        await starts[service](context)


class Recorder:
    """Events are best effort and no part of any invariant."""

    def for_component(self, component: str) -> Recorder:
        return self

    def event(self, *told: Any) -> None:
        pass


class ModelElector:
    """Leads while the model says so; two may believe that they do."""

    def __init__(self, client: Any, **options: Any) -> None:
        self._process = PROCESS.get()

    def is_certain(self) -> bool:
        """What the real one knows by its clock."""
        return not self._process.overtaken

    async def run(self, lead: Callable[[], Awaitable[None]], stopping: asyncio.Event) -> None:
        process = PROCESS.get()
        await process.granted.wait()
        async with asyncio.TaskGroup() as group:
            leading = group.create_task(_run(lead))
            await process.revoked.wait()
            leading.cancel()
        await asyncio.Event().wait()


async def _run(lead: Callable[[], Awaitable[None]]) -> None:
    await lead()


class ModelPool:
    """In place of mcp-host's connections: every MCPServer that exists is connected."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._servers: dict[str, MCPServer] = {}

    def add_handler(self, handler: Any) -> None:
        pass

    async def wait_known(self, uid: str) -> None:
        pass

    def state_of(self, server: MCPServer) -> None:
        return None

    def server(self, uid: str) -> MCPServer | None:
        return self._servers.get(uid)

    def get(self, uid: str) -> Any:
        server = self._servers.get(uid)
        if server is None:
            return None

        async def wait_session(timeout: float) -> ModelSession:
            return ModelSession(self._outside)

        return SimpleNamespace(server=server, wait_session=wait_session)

    def handle_change(self, change: Change[MCPServer]) -> None:
        if change.new is None:
            self._servers.pop(change.obj.uid, None)
        else:
            self._servers[change.new.uid] = change.new

    async def run(self, closing: asyncio.Event) -> None:
        await closing.wait()


class ModelRegistry:
    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    async def preload(self, spec: Any) -> None:
        pass

    async def build(self, spec: Any, api_key: str | None) -> ModelProvider:
        return ModelProvider(self._outside)

    async def aclose(self) -> None:
        pass


@contextmanager
def installed(world: Any) -> Iterator[None]:
    """The model in place of the clock, NATS, the elector, providers, MCP connections and the log."""
    before = structlog.get_config()
    with ExitStack() as stack:

        def put(target: Any, name: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(target, name, value))

        put(clock_module, "datetime", SimpleNamespace(now=lambda zone: world.now()))
        put(connection_module, "Client", world.new_client)
        put(connection_module, "datetime", SimpleNamespace(now=lambda zone: world.now()))
        put(connection_module, "time", SimpleNamespace(monotonic=world.loop.time))
        put(consumer_module, "time", SimpleNamespace(monotonic=world.loop.time))
        put(beat_module, "time", SimpleNamespace(monotonic=world.loop.time))
        put(consumer_module, "Pull", world.new_pull)
        put(leadership_module, "LeaderElector", ModelElector)
        put(gateway_module, "LeaderElector", ModelElector)
        put(gateway_module, "ProviderRegistry", lambda: ModelRegistry(world.outside))
        put(host_module, "ConnectionPool", lambda *options: ModelPool(world.outside))
        put(host_module, "build_launcher", lambda settings, nats_url: StdioLauncher({}))  # nothing is started
        structlog.configure(
            processors=[lambda logger, method, event: _note_error(world, event)],
            wrapper_class=structlog.make_filtering_bound_logger(40),
            cache_logger_on_first_use=False,
        )
        try:
            yield
        finally:
            structlog.configure(**before)


def _note_error(world: Any, event: Any) -> Any:
    """A defect shows as an unexpected exception in the log; an outage is none."""
    import sys

    info = event.get("exc_info")
    error = info if isinstance(info, BaseException) else sys.exc_info()[1]
    if not isinstance(error, (KubeError, MessagingError)):
        world.errors.append(f"{event.get('event')}: {error!r}")
    raise structlog.DropEvent
