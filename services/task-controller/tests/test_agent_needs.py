"""Whether an Agent has all that its spec names."""

from __future__ import annotations

from typing import Any

import pytest

from kubechain_common.testing.builders import build_agent, build_contact_channel, build_llm, build_mcp_server
from kubechain_task_controller.core.agent_needs import AgentNeeds, is_complete

AGENT = build_agent(
    mcpServers=[{"name": "fetch", "tools": ["fetch"]}],
    humanContactChannels=[{"name": "boss"}],
    subAgents=[{"name": "helper"}],
)
ALL: dict[str, Any] = {
    "llm": build_llm(),
    "servers": {"fetch": build_mcp_server()},
    "channels": {"boss": build_contact_channel("boss")},
    "sub_agents": {"helper": build_agent("helper")},
}


@pytest.mark.parametrize(
    ("differs", "complete"),
    [
        ({}, True),
        ({"llm": None}, False),
        ({"servers": {}}, False),
        ({"channels": {}}, False),
        ({"sub_agents": {}}, False),
        ({"llm": build_llm(ready=False)}, False),
        ({"servers": {"fetch": build_mcp_server(connected=False)}}, False),
        ({"servers": {"fetch": build_mcp_server(tools=("another",))}}, False),
        ({"channels": {"boss": build_contact_channel("boss", ready=False)}}, False),
        ({"sub_agents": {"helper": build_agent("helper", ready=False)}}, True),  # it may wait for this very Agent
    ],
)
def test_what_is_named_must_be_there_and_ready(differs: dict[str, Any], complete: bool) -> None:
    parts = {**ALL, **differs}
    sub_agents = parts.pop("sub_agents")
    assert is_complete(AgentNeeds(AGENT, **parts), sub_agents) is complete
