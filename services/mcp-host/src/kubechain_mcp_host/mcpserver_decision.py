"""What an MCPServer's status should say, given how its connection and its approval channel stand (pure).

A server whose calls could not be approved is not offered to agents, however well it is connected. The words are the
product's public contract. An event goes with a change of what the status says, never with a retry that failed for the
same reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from kubechain_common.api.v1alpha1 import ContactChannel, MCPServer
from kubechain_common.api.v1alpha1.mcpserver import MCPServerStatus
from kubechain_mcp_host.connections.state import MAX_TOOLS_BYTES, ConnectionState, Phase

CONNECTING_GRACE_SECONDS = 1.0
"""A first connection that is up within this needs no status of its own."""
TAKEOVER_GRACE_SECONDS = 10.0
"""A server that was ready before this process started gets this long to be so again, before its agents are told."""


@dataclass(frozen=True)
class Event:
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """The status to write (None: leave it), the event to record after that, and when to look again (seconds)."""

    status: MCPServerStatus | None = None
    event: Event | None = None
    requeue_after: float | None = None


def decide_status(
    server: MCPServer, state: ConnectionState, channel: ContactChannel | None, *, elapsed: float, now: datetime
) -> Plan:
    """What to write about the server. ``elapsed`` is for how many seconds the connection has been in its phase;
    ``channel`` is the one that the server names for approvals, if it exists.
    """
    trouble = _find_channel_trouble(server, channel)
    if trouble is not None and state.phase in (Phase.CONNECTING, Phase.CONNECTED):
        reason, sentence = trouble
        return _build_unready(server, state, "Pending", reason, sentence, sentence, now)
    match state.phase:
        case Phase.CONNECTED:
            return _decide_connected(server, state, now)
        case Phase.CONNECTING:
            return _decide_connecting(server, state, elapsed, now)
        case Phase.BLOCKED:
            status: Literal["Error", "Pending"] = "Pending" if state.reason == "SecretNotFound" else "Error"
            return _build_unready(server, state, status, state.reason, state.error, state.error, now)
        case Phase.FAILED if state.lost and state.failures <= 1:
            return _decide_failed(server, state, "Pending", "ConnectionLost", "Connection lost", now)
        case Phase.FAILED:
            return _decide_failed(server, state, "Error", "ConnectionFailed", "Connection failed", now)
        case _:
            return Plan()


def _find_channel_trouble(server: MCPServer, channel: ContactChannel | None) -> tuple[str, str] | None:
    """Reason and sentence, if nobody could be asked for approval."""
    named = server.spec.approval_contact_channel
    if named is None:
        return None
    if channel is None:
        return "ContactChannelNotFound", f'ContactChannel "{named.name}" not found'
    if not channel.status.ready:
        return "ContactChannelNotReady", f'ContactChannel "{named.name}" is not ready'
    return None


def _decide_connected(server: MCPServer, state: ConnectionState, now: datetime) -> Plan:
    size = sum(len(tool.model_dump_json()) for tool in state.tools)
    if size > MAX_TOOLS_BYTES:
        sentence = (
            f"The server describes its {len(state.tools)} tools with {size:,} bytes, "
            f"more than the {MAX_TOOLS_BYTES:,} that its status can hold."
        )
        return _build_unready(server, state, "Error", "TooManyTools", sentence, sentence, now)
    detail = f"Connected successfully with {len(state.tools)} tools"
    status = server.status.mark("Ready", "Connected", detail, generation=state.generation, now=now).model_copy(
        update={"connected": True, "protocol_version": state.protocol_version, "tools": list(state.tools)}
    )
    event = Event("Normal", "Connected", "MCP server connected successfully")
    return Plan(status, None if server.status.connected else event)


def _decide_connecting(server: MCPServer, state: ConnectionState, elapsed: float, now: datetime) -> Plan:
    current = server.status
    taken_over = current.connected and current.observed_generation == state.generation
    grace = TAKEOVER_GRACE_SECONDS if taken_over else CONNECTING_GRACE_SECONDS
    if elapsed < grace:
        return Plan(requeue_after=grace - elapsed)
    return Plan(_mark_unready(server, state, "Pending", "Connecting", "Connecting", now))


def _decide_failed(
    server: MCPServer,
    state: ConnectionState,
    status: Literal["Error", "Pending"],
    reason: str,
    prefix: str,
    now: datetime,
) -> Plan:
    sentence = f"{prefix}: {state.error}"
    detail = f"{sentence} Its last output: {state.last_output}" if state.last_output else sentence
    return _build_unready(server, state, status, reason, detail, sentence, now)


def _build_unready(
    server: MCPServer,
    state: ConnectionState,
    status: Literal["Error", "Pending"],
    reason: str,
    detail: str,
    message: str,
    now: datetime,
) -> Plan:
    current = server.status
    # The output of a server that fails again and again is never quite the same; the reason is.
    told = not current.connected and current.status == status and current.status_detail.startswith(message[:1024])
    return Plan(
        _mark_unready(server, state, status, reason, detail, now), None if told else Event("Warning", reason, message)
    )


def _mark_unready(
    server: MCPServer,
    state: ConnectionState,
    status: Literal["Error", "Pending"],
    reason: str,
    detail: str,
    now: datetime,
) -> MCPServerStatus:
    # The tools stay as they were last seen: they still tell what the server is for.
    marked = server.status.mark(status, reason, detail, generation=state.generation, now=now)
    update: dict[str, Any] = {"connected": False}
    return marked.model_copy(update=update)
