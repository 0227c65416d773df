"""Answers tool requests: one result per call, published before the request is acknowledged.

So at any instant a call's request, or its result, or the result's consequence in the call's own resource exists.
"""

from __future__ import annotations

import asyncio
import time

from kubechain_common.messages import ObjectRef, ToolRequest, ToolResult
from kubechain_common.messages.tool import REASON_BAD_REQUEST, REASON_SERVER_UNAVAILABLE
from kubechain_common.messages.topology import TOOL_RESULTS, tool_result_subject
from kubechain_common.messaging import Bus, Delivery, Poison, RetryLater
from kubechain_common.runtime.clock import now
from kubechain_common.runtime.waiting import run_unless
from kubechain_common.telemetry.logging import bound, get_logger
from kubechain_common.telemetry.tracing import Span, span, traceparent_of
from kubechain_mcp_host.call_ledger import CallLedger
from kubechain_mcp_host.connection import ServerConnection
from kubechain_mcp_host.connection_pool import ConnectionPool
from kubechain_mcp_host.metrics import TOOL_CALL_SECONDS, TOOL_CALLS
from kubechain_mcp_host.tool_call import ToolCall
from kubechain_mcp_host.tool_session import ToolSession

log = get_logger(__name__)


class CallHandler:
    """The handler of all servers' consumers."""

    def __init__(self, bus: Bus, pool: ConnectionPool, stopping: asyncio.Event) -> None:
        self._bus = bus
        self._pool = pool
        self._stopping = stopping
        self._ledger = CallLedger()

    async def handle(self, delivery: Delivery[ToolRequest]) -> None:
        """Runs the call (or finds out what became of it) and publishes its result.

        Raises only what keeps the call from being started: the request then comes again. RetryLater: this replica
        stops, and another one is to run it.
        """
        request = delivery.message
        subject = tool_result_subject(request.call.namespace, request.call.uid)
        if delivery.new_since is None and await self._bus.has_message(TOOL_RESULTS.name, subject):
            return
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
            result = await self._ledger.run_once(request.call.uid, lambda: self._run(delivery, current))
            self._account(result, current, time.monotonic() - began)
            # No message id: a second result, needed after the first got lost, would pass for a duplicate of it.
            await self._bus.publish_until_stored(subject, result, msg_id=None, trace=current.context)

    async def handle_poison(self, poison: Poison) -> None:
        """Answers for a request that can not be read, so that its call fails instead of waiting for ever.

        Whose it is its subject tells; the payload is not to be trusted.
        """
        *_, namespace, uid = poison.subject.split(".")
        sentence = f"mcp-host can not read the request of this call: {poison.reason}"
        call = ObjectRef(namespace=namespace, name="", uid=uid)
        result = ToolResult(call=call, outcome="Failed", reason=REASON_BAD_REQUEST, error=sentence, completed_at=now())
        TOOL_CALLS.labels(result.outcome, result.reason).inc()
        await self._bus.publish_until_stored(
            tool_result_subject(namespace, uid), result, msg_id=None, trace=poison.trace
        )

    async def _run(self, delivery: Delivery[ToolRequest], current: Span) -> ToolResult:
        request = delivery.message
        connection = self._pool.get(request.server.uid)
        if connection is None:
            sentence = f'MCPServer "{request.server.name}" was deleted.'
            return ToolResult(
                call=request.call,
                outcome="Failed",
                reason=REASON_SERVER_UNAVAILABLE,
                error=sentence,
                completed_at=now(),
            )
        call = ToolCall(
            request=request,
            server=connection.server,
            find_session=lambda seconds: self._find_session(connection, seconds),
            wait_session=connection.wait_session,
            record=self._bus.started_calls,
            redelivered=delivery.attempt > 1,
            # https://modelcontextprotocol.io/seps/414: servers join the trace by it.
            meta={"traceparent": traceparent_of(current.context)},
        )
        return await call.run()

    async def _find_session(self, connection: ServerConnection, seconds: float) -> ToolSession:
        """The open session. Raises RetryLater once this replica stops."""
        session = None
        if not self._stopping.is_set():
            session = await run_unless(self._stopping, connection.wait_session(seconds))
        if session is None:
            raise RetryLater(0.0, "this replica stops")
        return session

    def _account(self, result: ToolResult, current: Span, seconds: float) -> None:
        TOOL_CALLS.labels(result.outcome, result.reason).inc()
        TOOL_CALL_SECONDS.observe(seconds)
        if result.outcome == "Failed":
            current.set_attribute("error.type", result.reason)
            current.set_error(result.reason)
        log.info("tool call ended", outcome=result.outcome, reason=result.reason, seconds=round(seconds, 4))
