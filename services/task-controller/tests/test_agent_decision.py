"""When an Agent is ready, and what it waits for."""

from __future__ import annotations

from typing import Any

import pytest

from kubechain_common.testing.builders import NOW, build_agent, build_llm, build_mcp_server
from kubechain_task_controller.core.agent_decision import AgentPlan, AgentSnapshot, decide_agent


def decide(agent: Any, **parts: Any) -> AgentPlan:
    return decide_agent(AgentSnapshot(agent=agent, now=NOW, **parts))


def test_an_agent_whose_llm_is_ready_is_ready() -> None:
    plan = decide(build_agent(ready=False), llm=build_llm())
    assert plan.status is not None
    assert (plan.status.ready, plan.status.status) == (True, "Ready")
    assert plan.status.status_detail == "All dependencies validated successfully"
    assert plan.status.observed_generation == 1
    assert [(e.type, e.reason, e.message) for e in plan.events] == [
        ("Normal", "Initializing", "Starting validation"),
        ("Normal", "ValidationSucceeded", "All dependencies validated successfully"),
    ]


def test_nothing_is_written_when_nothing_changed() -> None:
    agent = build_agent(ready=False)
    plan = decide(agent, llm=build_llm())
    assert decide(agent.model_copy(update={"status": plan.status}), llm=build_llm()) == AgentPlan()


@pytest.mark.parametrize(
    ("parts", "spec", "detail"),
    [
        ({}, {}, 'Waiting for LLM "gpt-4o" to exist'),
        ({"llm": build_llm(ready=False)}, {}, 'Waiting for LLM "gpt-4o" to become ready'),
        ({"llm": build_llm()}, {"mcpServers": [{"name": "fetch"}]}, 'Waiting for MCPServer "fetch" to exist'),
        (
            {"llm": build_llm(), "servers": {"fetch": build_mcp_server(connected=False)}},
            {"mcpServers": [{"name": "fetch"}]},
            'Waiting for MCPServer "fetch" to become ready',
        ),
        (
            {"llm": build_llm(), "servers": {"fetch": build_mcp_server()}},
            {"mcpServers": [{"name": "fetch", "tools": ["nope"]}]},
            'Waiting for MCPServer "fetch" to offer tool "nope"',
        ),
    ],
)
def test_something_missing_is_pending_and_named(parts: dict[str, Any], spec: dict[str, Any], detail: str) -> None:
    plan = decide(build_agent(ready=False, **spec), **parts)
    assert plan.status is not None
    assert (plan.status.ready, plan.status.status, plan.status.status_detail) == (False, "Pending", detail)
    assert [e.reason for e in plan.events] == ["Initializing", "Waiting"]


def test_the_allowed_tools_are_listed() -> None:
    agent = build_agent(ready=False, mcpServers=[{"name": "fetch", "tools": ["head"]}])
    plan = decide(agent, llm=build_llm(), servers={"fetch": build_mcp_server(tools=("fetch", "head"))})
    assert plan.status is not None
    assert [(s.name, s.tools) for s in plan.status.valid_mcp_servers] == [("fetch", ["head"])]


def test_a_ready_agent_degrades_when_its_llm_goes() -> None:
    plan = decide(build_agent())
    assert plan.status is not None
    assert plan.status.status == "Pending"
    assert [e.reason for e in plan.events] == ["Waiting"]


def test_a_changed_spec_is_validated_again_and_said_so() -> None:
    agent = build_agent(ready=False)
    ready = decide(agent, llm=build_llm()).status
    metadata = agent.metadata.model_copy(update={"generation": 2})
    plan = decide(agent.model_copy(update={"status": ready, "metadata": metadata}), llm=build_llm())
    assert plan.status is not None
    assert plan.status.observed_generation == 2
    assert [e.reason for e in plan.events] == ["ValidationSucceeded"]


@pytest.mark.parametrize("field", ["humanContactChannels", "subAgents"])
def test_what_this_version_can_not_do_is_said(field: str) -> None:
    spec: dict[str, Any] = {field: [{"name": "x"}]}
    plan = decide(build_agent(ready=False, **spec), llm=build_llm())
    assert plan.status is not None
    assert field in plan.status.status_detail
