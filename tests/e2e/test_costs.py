"""What Tasks use is counted, priced and bounded, and stays right when controllers die and Tasks go."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.scripts import calls, in_turns
from tests.e2e.support.workspace import Workspace

from kubechain_cli.scripted_llm import Reply, Script
from kubechain_cli.scripted_llm.script import Usage
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

SOON = 15.0
PRICES = {"inputPerMillion": "2.50", "outputPerMillion": "10"}
EACH_TURN = Usage(1000, 100)
"""0.0035 USD"""


def call_nobody(*, then: str = "done", turns: int = 1) -> Script:
    """So many turns with a call, and an answer; each uses ``EACH_TURN``."""
    again = [Reply(tool_calls=calls(("nobody__nothing", {})).tool_calls, usage=EACH_TURN)] * turns
    return in_turns(*again, Reply(then, usage=EACH_TURN))


def apply_priced_agent(workspace: Workspace, script: Script, prices: Any = PRICES, **spec: Any) -> None:
    """Agent ``my-assistant`` on an LLM that has prices."""
    llm = manifests.llm(workspace.serve_llm(script).url)
    if prices:
        llm["spec"]["prices"] = prices
    workspace.kubectl.apply(manifests.secret("openai", OPENAI_API_KEY=workspace.key), llm, manifests.agent(**spec))
    workspace.kubectl.wait("agent/my-assistant", timeout=60)


def usage_of_agent(workspace: Workspace) -> tuple[int, int, str]:
    """(Tasks, tokens, cost)"""
    usage = workspace.kubectl.get("agent", "my-assistant")["status"].get("usage", {})
    return usage.get("tasks", 0), usage.get("tokenUsage", {}).get("totalTokens", 0), usage.get("cost", "")


def test_tokens_and_cost_are_shown_per_turn_per_task_and_per_agent(workspace: Workspace) -> None:
    apply_priced_agent(workspace, call_nobody())
    task = workspace.run_task("priced", "go")
    assert task["status"]["tokenUsage"]["totalTokens"] == 2200
    assert (task["status"]["cost"], task["status"]["currency"]) == ("0.007", "USD")
    used = [m.get("usage") for m in task["status"]["contextWindow"] if m["role"] == "assistant"]
    assert used == [{"inputTokens": 1000, "outputTokens": 100}] * 2
    header, row = workspace.kubectl("get", "tasks", "-o", "wide").splitlines()
    assert header.split()[-2:] == ["TOKENS", "COST"]
    assert row.split()[-2:] == ["2200", "0.007"]
    eventually(lambda: usage_of_agent(workspace) == (1, 2200, "0.007"), SOON, what="the Agent's usage")
    assert re.search(r"2200 +0\.007$", workspace.kubectl("get", "agents", "-o", "wide").strip())


def test_an_agents_usage_outlives_its_tasks_and_the_controller(workspace: Workspace) -> None:
    apply_priced_agent(workspace, call_nobody(turns=0))
    for name in ("one", "two"):
        workspace.run_task(name, "go")
    eventually(lambda: usage_of_agent(workspace) == (2, 2200, "0.007"), SOON, what="the Agent's usage")
    workspace.kubectl("delete", "task", "one")
    workspace.kill("task-controller")
    workspace.run_task("three", "go")
    eventually(lambda: usage_of_agent(workspace) == (3, 3300, "0.0105"), SOON, what="the Agent's usage")
