"""What the status says."""

from __future__ import annotations

from typing import Any

import pytest

from kubechain_common.api.v1alpha1 import ContactChannel, MCPServer
from kubechain_common.api.v1alpha1.mcpserver import MCPTool
from kubechain_common.testing.builders import NOW, build_contact_channel, build_mcp_server
from kubechain_mcp_host.connections.state import ConnectionState, Phase
from kubechain_mcp_host.mcpserver_decision import Event, Plan, decide_status

TOOLS = (MCPTool(name="fetch", input_schema={"type": "object", "required": ["url"]}),)
CONNECTED = ConnectionState(Phase.CONNECTED, generation=1, tools=TOOLS, protocol_version="2026-07-28")
FAILED = ConnectionState(
    Phase.FAILED, generation=1, error="the server did not answer.", last_output="no network", failures=1
)


def decide(
    server: MCPServer, state: ConnectionState, elapsed: float = 0.0, channel: ContactChannel | None = None
) -> Plan:
    return decide_status(server, state, channel, elapsed=elapsed, now=NOW)


def fresh() -> MCPServer:
    server = build_mcp_server(connected=False)
    return server.model_copy(update={"status": type(server.status)()})


def after(server: MCPServer, plan: Plan) -> MCPServer:
    return server.model_copy(update={"status": plan.status or server.status})


def test_connected() -> None:
    plan = decide(fresh(), CONNECTED)
    assert plan.status is not None
    wire: dict[str, Any] = plan.status.to_wire()
    assert wire["connected"] is True
    assert wire["ready"] is True
    assert wire["status"] == "Ready"
    assert wire["statusDetail"] == "Connected successfully with 1 tools"
    assert wire["protocolVersion"] == "2026-07-28"
    assert wire["tools"] == [{"name": "fetch", "inputSchema": {"type": "object", "required": ["url"]}}]
    assert wire["conditions"][0]["type"] == "Ready"
    assert wire["conditions"][0]["status"] == "True"
    assert plan.event == Event("Normal", "Connected", "MCP server connected successfully")


def test_staying_connected_is_no_news() -> None:
    server = after(fresh(), decide(fresh(), CONNECTED))
    again = decide(server, CONNECTED)
    assert again.status == server.status
    assert again.event is None


def test_more_tools_are_written_without_an_event() -> None:
    server = after(fresh(), decide(fresh(), CONNECTED))
    more = ConnectionState(Phase.CONNECTED, generation=1, tools=(*TOOLS, MCPTool(name="new")))
    plan = decide(server, more)
    assert plan.status is not None
    assert plan.status.status_detail == "Connected successfully with 2 tools"
    assert plan.event is None


def test_a_quick_first_connection_is_not_announced() -> None:
    state = ConnectionState(Phase.CONNECTING, generation=1)
    assert decide(fresh(), state, 0.4) == Plan(requeue_after=0.6)
    plan = decide(fresh(), state, 1.0)
    assert plan.status is not None
    assert (plan.status.status, plan.status.status_detail, plan.status.connected) == ("Pending", "Connecting", False)
    assert plan.event is None


def test_a_restarted_host_leaves_a_ready_server_ready_for_a_while() -> None:
    server = after(fresh(), decide(fresh(), CONNECTED))
    state = ConnectionState(Phase.CONNECTING, generation=1)
    assert decide(server, state, 2.0) == Plan(requeue_after=8.0)
    assert decide(server, state, 10.0).status is not None
    changed = ConnectionState(Phase.CONNECTING, generation=2)
    assert decide(server, changed, 2.0).status is not None


def test_a_failure() -> None:
    plan = decide(fresh(), FAILED)
    assert plan.status is not None
    assert (plan.status.status, plan.status.connected) == ("Error", False)
    assert plan.status.status_detail == ("Connection failed: the server did not answer. Its last output: no network")
    assert plan.event == Event("Warning", "ConnectionFailed", "Connection failed: the server did not answer.")


def test_the_same_failure_again_makes_no_event() -> None:
    server = after(fresh(), decide(fresh(), FAILED))
    other_output = ConnectionState(
        Phase.FAILED, generation=1, error="the server did not answer.", last_output="pid 7", failures=2
    )
    plan = decide(server, other_output)
    assert plan.event is None
    assert plan.status is not None
    assert plan.status.status_detail.endswith("pid 7")


def test_a_lost_connection_keeps_the_tools_and_warns() -> None:
    server = after(fresh(), decide(fresh(), CONNECTED))
    lost = ConnectionState(Phase.FAILED, generation=1, error="the server ended.", lost=True, failures=1)
    plan = decide(server, lost)
    assert plan.status is not None
    assert (plan.status.status, plan.status.connected, plan.status.ready) == ("Pending", False, False)
    assert plan.status.status_detail == "Connection lost: the server ended."
    assert plan.status.tools == list(TOOLS)
    assert plan.event == Event("Warning", "ConnectionLost", "Connection lost: the server ended.")
    still = ConnectionState(Phase.FAILED, generation=1, error="it does not answer.", lost=True, failures=2)
    plan = decide(after(server, plan), still)
    assert plan.status is not None
    assert plan.status.status == "Error"
    assert plan.event == Event("Warning", "ConnectionFailed", "Connection failed: it does not answer.")


@pytest.mark.parametrize(("reason", "status"), [("SecretNotFound", "Pending"), ("ValidationFailed", "Error")])
def test_what_blocks_a_connection(reason: str, status: str) -> None:
    state = ConnectionState(Phase.BLOCKED, generation=1, error="Something is missing.", reason=reason)
    plan = decide(fresh(), state)
    assert plan.status is not None
    assert (plan.status.status, plan.status.status_detail) == (status, "Something is missing.")
    assert plan.event == Event("Warning", reason, "Something is missing.")


def test_tools_that_no_status_can_hold() -> None:
    huge = MCPTool(name="huge", description="x" * 800_000)
    plan = decide(fresh(), ConnectionState(Phase.CONNECTED, generation=1, tools=(huge,)))
    assert plan.status is not None
    assert plan.status.status == "Error"
    assert plan.status.tools == []
    assert "more than the 786,432 that its status can hold" in plan.status.status_detail


def test_a_stopped_connection_says_nothing() -> None:
    assert decide(fresh(), ConnectionState(Phase.STOPPED)) == Plan()


# --- the channel that approves its calls

CONNECTING = ConnectionState(Phase.CONNECTING, generation=1)


def guarded() -> MCPServer:
    server = build_mcp_server(approvalContactChannel={"name": "approval-channel"})
    return server.model_copy(update={"status": type(server.status)()})


@pytest.mark.parametrize(
    ("channel", "reason", "sentence"),
    [
        (None, "ContactChannelNotFound", 'ContactChannel "approval-channel" not found'),
        (
            build_contact_channel(ready=False),
            "ContactChannelNotReady",
            'ContactChannel "approval-channel" is not ready',
        ),
    ],
)
@pytest.mark.parametrize("state", [CONNECTED, CONNECTING], ids=["connected", "connecting"])
def test_a_server_waits_for_its_approval_channel(
    state: ConnectionState, channel: ContactChannel | None, reason: str, sentence: str
) -> None:
    plan = decide(guarded(), state, channel=channel)
    assert plan.status is not None
    assert (plan.status.status, plan.status.connected, plan.status.ready) == ("Pending", False, False)
    assert plan.status.status_detail == sentence
    assert plan.event == Event("Warning", reason, sentence)
    again = decide(after(guarded(), plan), state, channel=channel)
    assert (again.status, again.event) == (plan.status, None)


def test_a_server_is_connected_once_its_approval_channel_is_ready() -> None:
    waiting = after(guarded(), decide(guarded(), CONNECTED))
    plan = decide(waiting, CONNECTED, channel=build_contact_channel())
    assert plan.status is not None
    assert (plan.status.status, plan.status.connected) == ("Ready", True)
    assert plan.event == Event("Normal", "Connected", "MCP server connected successfully")


def test_a_server_whose_approval_channel_breaks_is_not_offered_any_more_and_keeps_its_tools() -> None:
    good = after(guarded(), decide(guarded(), CONNECTED, channel=build_contact_channel()))
    plan = decide(good, CONNECTED, channel=build_contact_channel(ready=False))
    assert plan.status is not None
    assert (plan.status.status, plan.status.connected, plan.status.tools) == ("Pending", False, list(TOOLS))


def test_what_is_wrong_with_the_connection_itself_is_told_first() -> None:
    plan = decide(guarded(), FAILED)
    assert plan.status is not None
    assert plan.status.status == "Error"
    blocked = ConnectionState(Phase.BLOCKED, generation=1, error="No such Secret.", reason="SecretNotFound")
    assert decide(guarded(), blocked).event == Event("Warning", "SecretNotFound", "No such Secret.")


def test_the_channel_of_a_server_without_approvals_does_not_matter() -> None:
    plan = decide(fresh(), CONNECTED, channel=build_contact_channel(ready=False))
    assert plan.status is not None
    assert plan.status.connected
