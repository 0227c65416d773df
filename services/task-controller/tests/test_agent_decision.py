"""When an Agent is ready, and what it waits for."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from kubechain_common.testing.builders import NOW, build_agent, build_contact_channel, build_llm, build_mcp_server
from kubechain_task_controller.core.agent_decision import AgentPlan, AgentSnapshot, decide_agent
from kubechain_task_controller.core.agent_needs import AgentNeeds
from kubechain_task_controller.core.spent import Spent


def decide(agent: Any, **parts: Any) -> AgentPlan:
    return decide_agent(AgentSnapshot(AgentNeeds(agent, **parts), NOW))


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
        (
            {"llm": build_llm()},
            {"humanContactChannels": [{"name": "boss"}]},
            'Waiting for ContactChannel "boss" to exist',
        ),
        (
            {"llm": build_llm(), "channels": {"boss": build_contact_channel("boss", ready=False)}},
            {"humanContactChannels": [{"name": "boss"}]},
            'Waiting for ContactChannel "boss" to become ready',
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


def test_channels_and_sub_agents_are_listed_once_all_are_ready() -> None:
    agent = build_agent(ready=False, humanContactChannels=[{"name": "boss"}], subAgents=[{"name": "helper"}])
    needs = AgentNeeds(agent, build_llm(), channels={"boss": build_contact_channel("boss")})
    helper = AgentNeeds(build_agent("helper", ready=False), build_llm())
    plan = decide_agent(AgentSnapshot(needs, NOW, {"helper": helper}))
    assert plan.status is not None
    assert plan.status.ready
    assert [(c.name, c.type) for c in plan.status.valid_human_contact_channels] == [("boss", "inbox")]
    assert [a.name for a in plan.status.valid_sub_agents] == ["helper"]
    degraded = decide_agent(AgentSnapshot(replace(needs, agent=agent.model_copy(update={"status": plan.status})), NOW))
    assert degraded.status is not None
    assert degraded.status.status_detail == 'Waiting for sub-agent "helper" to exist'
    assert degraded.status.valid_human_contact_channels == []
    assert degraded.status.valid_sub_agents == []


USED = Spent(2, 100, 20, 120, 40, {"USD": Decimal("0.5"), "EUR": Decimal(3)})
GONE = Spent(1, 10, 2, 12, 0, {"USD": Decimal("0.1")})


def test_an_agent_shows_what_its_tasks_used_without_an_event() -> None:
    agent = build_agent(ready=False)
    ready = decide(agent, llm=build_llm()).status
    agent = agent.model_copy(update={"status": ready})
    plan = decide_agent(AgentSnapshot(AgentNeeds(agent, build_llm()), NOW, spent=USED, spent_by_deleted=GONE))
    assert plan.status is not None
    assert plan.events == ()
    assert plan.status.to_wire()["usage"] == {
        "tasks": 2,
        "tokenUsage": {"inputTokens": 100, "outputTokens": 20, "totalTokens": 120, "cachedInputTokens": 40},
        "cost": "0.5",
        "currency": "USD",
    }
    assert plan.status.to_wire()["usageOfDeleted"]["cost"] == "0.1"
    agent = agent.model_copy(update={"status": plan.status})
    same = AgentSnapshot(AgentNeeds(agent, build_llm()), NOW, spent=USED, spent_by_deleted=GONE)
    assert decide_agent(same) == AgentPlan()


def test_the_cost_of_an_agent_is_in_the_currency_of_its_llm() -> None:
    prices = {"currency": "EUR", "inputPerMillion": "1", "outputPerMillion": "2"}
    snapshot = AgentSnapshot(AgentNeeds(build_agent(), build_llm(prices=prices)), NOW, spent=USED)
    status = decide_agent(snapshot).status
    assert status is not None
    assert status.usage is not None
    assert (status.usage.cost, status.usage.currency) == ("3", "EUR")
