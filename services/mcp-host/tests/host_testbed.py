"""Whole replicas of mcp-host but for the API server, over a real NATS: pool, sessions, workers and handler."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from mcp_testbed import FAST, eventually

from kubechain_common.api.v1alpha1 import MCPServer
from kubechain_common.kube.event_recorder import EventRecorder
from kubechain_common.kube.informer import Change
from kubechain_common.kube.secrets import SecretWatcher
from kubechain_common.messages import ObjectRef, ToolRequest, ToolResult
from kubechain_common.messages.topology import TOOL_RESULTS_CONSUMER, tool_request_subject
from kubechain_common.messaging import Bus, Consumer, Delivery, Room
from kubechain_common.runtime.clock import now
from kubechain_common.testing.nats_server import NatsServer, run_nats_server
from kubechain_mcp_host.calls.handler import CallHandler
from kubechain_mcp_host.calls.worker import CallWorkers
from kubechain_mcp_host.connections.pool import ConnectionPool
from kubechain_mcp_host.connections.state import Timing
from kubechain_mcp_host.sessions.sessions import Sessions
from kubechain_mcp_host.stdio.launch import StdioLauncher


class NoSecrets:
    def add_handler(self, handler: Callable[[str, str], None]) -> None: ...
    def set_references(self, owner: str, refs: set[tuple[str, str]]) -> None: ...


@dataclass
class Told:
    """A recorder that keeps (kind, name, reason) of each event."""

    events: list[tuple[str, str, str]] = field(default_factory=list)

    def event(self, obj: Any, event_type: str, reason: str, message: str) -> None:
        self.events.append((obj.crd.kind, obj.name, reason))


@dataclass
class Host:
    """One replica."""

    bus: Bus
    pool: ConnectionPool
    sessions: Sessions
    workers: CallWorkers
    room: Room
    told: Told
    stopping: asyncio.Event
    results: dict[str, list[ToolResult]] = field(default_factory=dict)
    requests: list[ToolRequest] = field(default_factory=list)

    def change(self, kind: str, server: MCPServer, old: MCPServer | None = None) -> None:
        new = None if kind == "deleted" else server
        change = Change(cast("Any", kind), old or (server if kind == "deleted" else None), new)
        self.pool.handle_change(change)
        self.workers.handle_change(change)
        self.sessions.handle_change(change)

    async def request(
        self, server: MCPServer, tool: str, arguments: str = "{}", uid: str = "call-1", task: str = ""
    ) -> None:
        request = ToolRequest(
            call=ObjectRef(namespace="default", name="the-call", uid=uid),
            task=ObjectRef(namespace="default", name=task, uid=f"uid-{task}") if task else None,
            execution_key=f"default/{uid}",
            server=ObjectRef.of(server),
            tool=tool,
            arguments=arguments,
            requested_at=now(),
        )
        await self.bus.publish(tool_request_subject(server.uid, "default", uid), request, msg_id=None)

    async def result(self, uid: str = "call-1", seconds: float = 8.0) -> ToolResult:
        await eventually(lambda: self.results.get(uid), seconds)
        return self.results[uid][0]

    async def take_result(self, delivery: Delivery[ToolResult]) -> None:
        self.results.setdefault(delivery.subject.rpartition(".")[2], []).append(delivery.message)

    async def take_request(self, delivery: Delivery[ToolRequest]) -> None:
        self.requests.append(delivery.message)


GRACE = 30.0
"""Seconds. No test waits so long: what runs when a replica stops has to end by itself."""


@asynccontextmanager
async def run_replica(
    url: str, pod: str = "mcp-host-0", *, timing: Timing = FAST, places: int = 100, idle: float = 60.0
) -> AsyncIterator[Host]:
    """A replica; it drains at the end."""
    async with Bus.connect(url, pod) as bus:
        pool = ConnectionPool(cast("SecretWatcher", NoSecrets()), StdioLauncher(os.environ), timing)
        stopping, closing, told, room = asyncio.Event(), asyncio.Event(), Told(), Room(places)
        sessions = Sessions(bus, pool, cast("EventRecorder", told), stopping, pod=pod, idle_seconds=idle, grace=GRACE)
        handler = CallHandler(bus, pool, sessions, room, stopping)
        workers = CallWorkers(bus, handler, pool.wait_known, grace=GRACE, room=room)
        async with asyncio.TaskGroup() as group:
            group.create_task(pool.run(closing))
            working = group.create_task(workers.run(stopping))
            hosting = group.create_task(sessions.run(workers, handler.handle_in))
            try:
                yield Host(bus, pool, sessions, workers, room, told, stopping)
            finally:
                stopping.set()
                await asyncio.wait({working, hosting})
                closing.set()


@asynccontextmanager
async def run_host(
    directory: Path, *, collect: bool = True, timing: Timing = FAST
) -> AsyncIterator[tuple[Host, NatsServer]]:
    """One replica, which takes the results as well, and its NATS."""
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(run_nats_server(directory))
        host = await stack.enter_async_context(run_replica(nats.url, timing=timing))
        if collect:
            await stack.enter_async_context(collecting(host))
        yield host, nats


@asynccontextmanager
async def collecting(host: Host) -> AsyncIterator[None]:
    """The results are put into ``host.results``."""
    collector = Consumer(host.bus, TOOL_RESULTS_CONSUMER, ToolResult, host.take_result, concurrency=8)
    done = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(collector.run(done))
        try:
            yield
        finally:
            done.set()
