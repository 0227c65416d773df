"""One consumer of tool requests per MCPServer, for as long as the server exists.

Each server has one of its own, so that a slow server holds up no other. All replicas share it, so that
``maxConcurrency`` holds over all of them. What one replica runs at a time over all servers is bounded by a Room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from kubechain_common.api.v1alpha1 import MCPServer
from kubechain_common.api.v1alpha1.mcpserver import DEFAULT_MAX_CONCURRENCY
from kubechain_common.kube.informer import Change
from kubechain_common.messages import ToolRequest
from kubechain_common.messages.topology import mcp_consumer
from kubechain_common.messaging import Bus, Consumer, Delivery, MessagingError, Poison, Room
from kubechain_common.runtime.waiting import run_unless
from kubechain_common.telemetry.logging import get_logger

log = get_logger(__name__)


class RequestHandler(Protocol):
    """Answers requests (CallHandler)."""

    async def handle(self, delivery: Delivery[ToolRequest]) -> None: ...
    async def handle_poison(self, poison: Poison) -> None: ...


WaitKnown = Callable[[str], Awaitable[None]]
"""Returns once it is known whether this replica can connect to the MCPServer with that uid."""

FAREWELL_SECONDS = 5.0
"""How long the requests of a deleted server are still answered (by "it was deleted")."""


class ServerWorker:
    """Takes one server's requests until it is deleted, then removes the durable consumer.

    It takes none before ``wait_known`` returns: while this replica still connects for the first time, others may long
    be ready.
    """

    def __init__(
        self,
        bus: Bus,
        handler: RequestHandler,
        wait_known: WaitKnown,
        uid: str,
        *,
        concurrency: int,
        grace: float,
        room: Room | None,
    ) -> None:
        self._bus = bus
        self._wait_known = wait_known
        self._uid = uid
        self._concurrency = concurrency
        self._consumer = Consumer(
            bus,
            mcp_consumer(uid, concurrency),
            ToolRequest,
            handler.handle,
            concurrency=concurrency,
            on_poison=handler.handle_poison,
            grace=grace,
            room=room,
        )
        self._stop_consumer = asyncio.Event()
        self._deleted = asyncio.Event()
        self._started = False
        self._ended = asyncio.Event()

    def set_concurrency(self, concurrency: int) -> None:
        """Sets the limit for calls that start from now on; running ones go on."""
        if concurrency != self._concurrency:
            self._concurrency = concurrency
            self._consumer.set_concurrency(concurrency)

    def mark_deleted(self) -> None:
        self._deleted.set()

    async def leave(self) -> None:
        """Takes nothing more; returns once the running calls have ended, or their grace has."""
        self._stop_consumer.set()
        if self._started:
            await self._ended.wait()

    async def run(self, stopping: asyncio.Event) -> None:
        self._started = True
        try:
            await self._run(stopping)
        finally:
            self._ended.set()

    async def _run(self, stopping: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            bell = group.create_task(self._stop_when(stopping))
            farewell = group.create_task(self._say_farewell())
            await run_unless(self._stop_consumer, self._wait_known(self._uid))
            await self._consumer.run(self._stop_consumer)
            bell.cancel()
            farewell.cancel()
        if farewell.done() and not farewell.cancelled():
            await self._delete_consumer()

    async def _stop_when(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._stop_consumer.set()

    async def _say_farewell(self) -> None:
        await self._deleted.wait()
        await asyncio.sleep(FAREWELL_SECONDS)
        self._stop_consumer.set()

    async def _delete_consumer(self) -> None:
        spec = mcp_consumer(self._uid, self._concurrency)
        try:
            await self._bus.delete_consumer(spec.stream, spec.durable)
            # A request that came too late even for the farewell must not look as if somebody were at it.
            await self._bus.purge(spec.stream, spec.filter_subject)
        except MessagingError as error:
            # Harmless: nobody publishes to it any more.
            log.warning("the consumer of a deleted server stays behind", consumer=spec.durable, error=str(error))


class CallWorkers:
    """Follows the MCPServers (``handle_change``) and runs a worker for each."""

    def __init__(self, bus: Bus, handler: RequestHandler, wait_known: WaitKnown, *, grace: float, room: Room) -> None:
        self._bus = bus
        self._handler = handler
        self._wait_known = wait_known
        self._grace = grace
        self._room = room
        self._workers: dict[str, ServerWorker] = {}
        self._new: asyncio.Queue[ServerWorker] = asyncio.Queue()

    def handle_change(self, change: Change[MCPServer]) -> None:
        """Informer handler. A server whose session is shared has a worker only where it is hosted."""
        server = change.new
        if server is None or server.metadata.deleting:
            self._remove(change.obj)
            return
        worker = self._workers.get(server.uid)
        if worker is not None:
            worker.set_concurrency(_concurrency_of(server))
        elif server.spec.session != "Shared":
            self.host(server)

    def host(self, server: MCPServer) -> ServerWorker:
        """Take the server's requests."""
        worker = self._workers[server.uid] = ServerWorker(
            self._bus,
            self._handler,
            self._wait_known,
            server.uid,
            concurrency=_concurrency_of(server),
            grace=self._grace,
            # A call of a Task's session takes its place where that session is.
            room=None if server.spec.session == "PerTask" else self._room,
        )
        self._new.put_nowait(worker)
        return worker

    async def leave(self, uid: str, worker: ServerWorker) -> None:
        """Take no more requests of that server; returns once the running calls have ended."""
        if self._workers.get(uid) is worker:
            del self._workers[uid]
        await worker.leave()

    def _remove(self, server: MCPServer) -> None:
        worker = self._workers.pop(server.uid, None)
        if worker is None and server.spec.session == "Shared":  # whoever hosts it may be gone
            worker = self.host(server)
            del self._workers[server.uid]
        if worker is not None:
            worker.mark_deleted()

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs the workers until ``stopping`` is set and the running calls have ended, or their grace has."""
        async with asyncio.TaskGroup() as group:
            starter = group.create_task(self._start_all(group, stopping))
            await stopping.wait()
            starter.cancel()

    async def _start_all(self, group: asyncio.TaskGroup, stopping: asyncio.Event) -> None:
        while True:
            worker = await self._new.get()
            group.create_task(worker.run(stopping))


def _concurrency_of(server: MCPServer) -> int:
    return server.spec.max_concurrency or DEFAULT_MAX_CONCURRENCY
