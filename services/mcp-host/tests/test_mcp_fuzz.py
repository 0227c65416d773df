"""Arbitrary requests, servers and results: a call always gets its answer, and a server always a status."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from mcp_types import CallToolResult, TextContent

from kubechain_common.api.tool_arguments import InvalidArgumentsError
from kubechain_common.api.v1alpha1 import ContactChannel, MCPServer
from kubechain_common.messages import ToolRequest, ToolResult
from kubechain_common.messages.topology import tool_request_subject, tool_result_subject
from kubechain_common.messaging import Claim, Room, codec
from kubechain_common.messaging.delivery import Delivery, Poison
from kubechain_common.messaging.errors import PoisonMessage
from kubechain_common.testing.arbitrary import JSON, NAMES, fuzz, models, resources
from kubechain_mcp_host.calls.execution_decision import parse_arguments
from kubechain_mcp_host.calls.handler import CallHandler
from kubechain_mcp_host.calls.tool_result import MAX_BYTES, cap, render_result
from kubechain_mcp_host.connections.state import ConnectionState, Phase
from kubechain_mcp_host.errors import ConnectionSpecError
from kubechain_mcp_host.mcpserver_decision import decide_status
from kubechain_mcp_host.spec.connection_spec import ConnectionSpec, resolve_connection

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REF = st.fixed_dictionaries({"namespace": st.just("default"), "name": NAMES, "uid": st.just("call-1")})
RESULT = tool_result_subject("default", "call-1")

servers = resources(MCPServer, {"name": NAMES})
channels = resources(ContactChannel, {"name": NAMES})
requests = models(
    ToolRequest, {"v": st.just(1), "call": REF, "server": REF, "requestedAt": st.just("2026-01-01T00:00:00Z")}
)
broken_text = st.text(st.characters(categories=["L", "Cs", "Cc"]), max_size=12)  # half surrogate pairs included


class RecordingBus:
    """Takes what the bus would: only what can be encoded."""

    def __init__(self) -> None:
        self.published: list[tuple[str, ToolResult]] = []
        self.started_calls = self

    async def claim(self, execution_key: str) -> Claim:
        return Claim.GRANTED

    async def created_at(self) -> datetime:
        return datetime.min.replace(tzinfo=UTC)

    async def has_message(self, stream: str, subject: str) -> bool:
        return False

    async def publish_until_stored(self, subject: str, result: ToolResult, **_: Any) -> None:
        self.published.append((subject, codec.decode(ToolResult, codec.encode(result))))


@fuzz
@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()) | requests.map(codec.encode))
async def test_every_request_is_answered_on_its_calls_subject(data: bytes) -> None:
    bus = RecordingBus()
    handler = CallHandler(
        cast("Any", bus),
        cast("Any", SimpleNamespace(get=lambda uid: None, server=lambda uid: None)),
        cast("Any", SimpleNamespace(shared={})),
        Room(1),
        asyncio.Event(),
    )
    subject = tool_request_subject("server-1", "default", "call-1")
    try:
        request = codec.decode(ToolRequest, data)
    except PoisonMessage as poison:
        await handler.handle_poison(Poison(subject, data, poison.reason, 1, None))
    else:
        await handler.handle(Delivery(request, 1, None, subject, NOW, 1))
    ((where, result),) = bus.published
    assert (where, result.call.uid, result.outcome) == (RESULT, "call-1", "Failed")
    assert result.error


@fuzz
@given(
    servers,
    st.none() | channels,
    st.sampled_from(Phase),
    st.text(max_size=8),
    st.sampled_from(["SecretNotFound", "ValidationFailed"]),
)
def test_every_server_has_a_status(
    server: MCPServer, channel: ContactChannel | None, phase: Phase, words: str, reason: str
) -> None:
    state = ConnectionState(phase, time.monotonic(), 1, tuple(server.status.tools), error=words, reason=reason)
    plan = decide_status(server, state, channel, elapsed=2.0, now=NOW)
    if plan.status is not None:
        plan.status.to_wire()


@fuzz
@given(servers, st.none() | st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=2))
def test_every_spec_is_connected_to_or_refused(server: MCPServer, secret: dict[str, str] | None) -> None:
    with suppress(ConnectionSpecError):
        assert isinstance(resolve_connection(server, lambda name: secret), ConnectionSpec)


@fuzz
@given(st.text() | JSON.map(json.dumps) | broken_text)
def test_arguments_are_an_object_or_an_error_of_the_model(text: str) -> None:
    with suppress(InvalidArgumentsError):
        assert isinstance(parse_arguments(text), dict)


@fuzz
@given(st.lists(broken_text, max_size=3), st.none() | st.dictionaries(st.text(max_size=4), JSON, max_size=2))
def test_every_result_is_text_that_can_travel(texts: list[str], structured: dict[str, Any] | None) -> None:
    blocks = [TextContent(type="text", text=text) for text in texts]
    text = cap(render_result(CallToolResult(content=list(blocks), structured_content=structured)))
    assert 0 < len(text.encode()) <= MAX_BYTES
