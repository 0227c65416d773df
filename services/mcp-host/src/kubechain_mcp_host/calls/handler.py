"""Answers tool requests: one result per call, published before the request is acknowledged.

So at any instant a call's request, or its result, or the result's consequence in the call's own resource exists.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from kubechain_common.messages import ObjectRef, ToolRequest, ToolResult
from kubechain_common.messages.tool import REASON_BAD_REQUEST, REASON_SERVER_UNAVAILABLE
from kubechain_common.messages.topology import TOOL_RESULTS, tool_result_subject
from kubechain_common.messaging import Bus, Delivery, Poison, RetryLater, Room
from kubechain_common.runtime.clock import now
from kubechain_common.runtime.waiting import run_unless
from kubechain_common.telemetry.logging import bound, get_logger
from kubechain_common.telemetry.tracing import Span, span, traceparent_of
from kubechain_mcp_host.calls.ledger import CallLedger
from kubechain_mcp_host.calls.tool_call import ToolCall, refuse
from kubechain_mcp_host.connections.connection import ServerConnection
from kubechain_mcp_host.connections.pool import ConnectionPool
from kubechain_mcp_host.connections.tool_session import ToolSession
from kubechain_mcp_host.metrics import TOOL_CALL_SECONDS, TOOL_CALLS
from kubechain_mcp_host.sessions.sessions import Sessions
from kubechain_mcp_host.sessions.task_sessions import HostedSession

log = get_logger(__name__)


class CallHandler:
    """The handler of all servers' consumers."""

    def __init__(self, bus: Bus, pool: ConnectionPool, sessions: Sessions, room: Room, stopping: asyncio.Event) -> None:
        self._bus = bus
        self._pool = pool
        self._sessions = sessions
        self._room = room
        self._stopping = stopping
        self._ledger = CallLedger()

    async def handle(self, delivery: Delivery[ToolRequest]) -> None:
        """Runs the call (or finds out what became of it) and publishes its result, or has the replica do so that has
        the session of its Task.

        Raises only what keeps the call from being started: the request then comes again. RetryLater: this replica
        stops, and another one is to run it.
        """
        request = delivery.message
        subject = tool_result_subject(request.call.namespace, request.call.uid)
        if delivery.new_since is None and await self._bus.has_message(TOOL_RESULTS.name, subject):
            return
        server = self._pool.server(request.server.uid)
        if server is None or server.spec.session != "PerTask":
            await self._answer(delivery, self._sessions.shared.get(request.server.uid))
            return
        session = await self._sessions.tasks.find(server, delivery)
        if session is not None:
            await self.handle_in(delivery, session)

    async def handle_in(self, delivery: Delivery[ToolRequest], session: HostedSession) -> None:
        """The same for a call whose Task's session is here. It has yet to take its place of this replica's room."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._sessions.tasks.use(session))
            await run_unless(self._stopping, stack.enter_async_context(self._room.hold()))
            await self._answer(delivery, session)

    async def _answer(self, delivery: Delivery[ToolRequest], session: HostedSession | None) -> None:
        request = delivery.message
        subject = tool_result_subject(request.call.namespace, request.call.uid)
        began = time.monotonic()
        with (
            bound(tool_call=request.call.name, namespace=request.call.namespace, mcp_server=request.server.name),
            span(
                f"execute_tool {request.tool}",
                delivery.trace,
                kind="client",
                attributes={
                    "gen_ai.operation.name": "execute_tool",
                    "gen_ai.tool.name": request.tool,
                    "gen_ai.tool.type": "extension",
                    "mcp.method.name": "tools/call",
                    "k8s.namespace.name": request.call.namespace,
                    "kubechain.mcp_server": request.server.name,
                    "kubechain.tool_call": request.call.name,
                },
            ) as current,
        ):
            result = await self._ledger.run_once(request.call.uid, lambda: self._run(delivery, session, current))
            self._account(result, current, time.monotonic() - began)
            await self._bus.publish_until_stored(subject, result, trace=current.context)

    async def handle_poison(self, poison: Poison) -> None:
        """Answers for a request that can not be read, so that its call fails instead of waiting for ever.

        The subject tells whose it is; the payload is not to be trusted.
        """
        *_, namespace, uid = poison.subject.split(".")
        sentence = f"mcp-host can not read the request of this call: {poison.reason}"
        call = ObjectRef(namespace=namespace, name="", uid=uid)
        result = ToolResult(call=call, outcome="Failed", reason=REASON_BAD_REQUEST, error=sentence, completed_at=now())
        TOOL_CALLS.labels(result.outcome, result.reason).inc()
        await self._bus.publish_until_stored(tool_result_subject(namespace, uid), result, trace=poison.trace)

    async def _run(self, delivery: Delivery[ToolRequest], session: HostedSession | None, current: Span) -> ToolResult:
        request = delivery.message
        connection = session.connection if session is not None else self._pool.get(request.server.uid)
        if connection is None:
            deleted = f'MCPServer "{request.server.name}" was deleted.'
            return await refuse(request, self._bus.started_calls, REASON_SERVER_UNAVAILABLE, deleted)
        call = ToolCall(
            request=request,
            server=connection.server,
            find_session=lambda seconds: self._find_session(request, connection, session, seconds),
            wait_session=connection.wait_session,
            record=self._bus.started_calls,
            # https://modelcontextprotocol.io/seps/414: servers join the trace by it.
            meta={"traceparent": traceparent_of(current.context)},
        )
        return await call.run()

    async def _find_session(
        self, request: ToolRequest, connection: ServerConnection, session: HostedSession | None, seconds: float
    ) -> ToolSession:
        """The open session. Raises RetryLater once this replica stops."""
        found = None
        if not self._stopping.is_set():
            found = await run_unless(self._stopping, connection.wait_session(seconds))
        if found is None:
            raise RetryLater(0.0, "this replica stops")
        if session is not None and session.meets_new():
            self._sessions.events.call_meets_new_session(connection.server, request)
        return found

    def _account(self, result: ToolResult, current: Span, seconds: float) -> None:
        TOOL_CALLS.labels(result.outcome, result.reason).inc()
        TOOL_CALL_SECONDS.observe(seconds)
        if result.outcome == "Failed":
            current.set_attribute("error.type", result.reason)
            current.set_error(result.reason)
        log.info("tool call ended", outcome=result.outcome, reason=result.reason, seconds=round(seconds, 4))
