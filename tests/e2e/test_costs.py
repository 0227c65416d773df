"""What Tasks use is counted, priced and bounded, and stays right when controllers die and Tasks go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.failures import assert_told
from tests.e2e.support.scripts import calls, in_turns
from tests.e2e.support.witness import Witness
from tests.e2e.support.workspace import Workspace, reason_of

from kubechain_cli.scripted_llm import ChatMessage, Reply, Script, ToolSpec
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


def test_an_agents_usage_outlives_its_tasks_and_the_controller(workspace: Workspace) -> None:
    apply_priced_agent(workspace, call_nobody(turns=0))
    for name in ("one", "two"):
        workspace.run_task(name, "go")
    eventually(lambda: usage_of_agent(workspace) == (2, 2200, "0.007"), SOON, what="the Agent's usage")
    workspace.kubectl("delete", "task", "one")
    workspace.kill("task-controller")
    workspace.run_task("three", "go")
    eventually(lambda: usage_of_agent(workspace) == (3, 3300, "0.0105"), SOON, what="the Agent's usage")


@pytest.mark.failure("budget-task")
def test_a_task_ends_before_it_asks_beyond_its_budget(workspace: Workspace, witness: Witness) -> None:
    apply_priced_agent(workspace, call_nobody(turns=9))
    budget = {"tokens": 2000}
    workspace.kubectl.apply(manifests.task("bounded", "go", budget=budget))
    task = workspace.kubectl.finish("bounded", "Failed")
    assert (reason_of(task), task["status"]["turn"]) == ("BudgetExceeded", 2)
    assert task["status"]["tokenUsage"]["totalTokens"] == 2200
    assert len(workspace.calls_of("bounded")) == 1
    assert_told("budget-task", witness, "bounded")
    workspace.kubectl.apply(manifests.task("frugal", "go", budget={"cost": "0.0036"}))
    task = workspace.kubectl.finish("frugal", "Failed")
    assert task["status"]["error"] == "The Task used 0.007 USD of its budget of 0.0036 USD"
    changed = workspace.kubectl.try_run(
        "patch", "task", "frugal", "--type=merge", "-p", '{"spec":{"budget":{"tokens":9}}}'
    )
    assert "budget is immutable: create a new Task instead" in changed.stderr


def delegate_and_burn(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> Reply:
    """The boss asks its helper; the helper calls nobody for ever."""
    offered = [tool.name for tool in tools if tool.name.startswith("delegate_to_agent__")]
    call = (offered[0], {"message": "burn"}) if offered else ("nobody__nothing", {})
    return Reply(tool_calls=calls(call).tool_calls, usage=EACH_TURN)


@pytest.mark.failure("budget-tree")
def test_what_sub_agents_use_counts_for_the_task_that_they_work_for(workspace: Workspace, witness: Witness) -> None:
    workspace.kubectl.apply(manifests.agent("helper"))
    apply_priced_agent(workspace, delegate_and_burn, subAgents=[{"name": "helper"}])
    workspace.kubectl.apply(manifests.task("boss", "go", budget={"tokens": 4000}))
    task = workspace.kubectl.finish("boss", "Failed")
    assert reason_of(task) == "BudgetExceeded"
    assert task["status"]["tokenUsage"]["totalTokens"] == 1100
    tasks = {t["metadata"]["name"]: t for t in workspace.kubectl.list("task")}
    (helper,) = [name for name in tasks if name != "boss"]
    assert (reason_of(tasks[helper]), tasks[helper]["status"]["tokenUsage"]["totalTokens"]) == ("BudgetExceeded", 3300)
    assert_told("budget-tree", witness, "boss", helper)


@pytest.mark.failure("budget-no-prices")
def test_a_budget_in_money_waits_for_prices(workspace: Workspace, witness: Witness) -> None:
    apply_priced_agent(workspace, call_nobody(turns=0), prices=None)
    workspace.kubectl.apply(manifests.task("careful", "go", budget={"cost": "0.01"}))

    def waits() -> bool:
        return "to have prices" in workspace.kubectl.get("task", "careful").get("status", {}).get("statusDetail", "")

    eventually(waits, SOON, what="the Task's wait for prices")
    prices = '{"spec": {"prices": {"inputPerMillion": "2.50", "outputPerMillion": "10"}}}'
    workspace.kubectl("patch", "llm", "gpt-4o", "--type=merge", "-p", prices)
    task = workspace.kubectl.finish("careful")
    assert task["status"]["cost"] == "0.0035"
    assert_told("budget-no-prices", witness, "careful")


def set_budget(workspace: Workspace, tokens: str) -> None:
    """The budget of the workspace's namespace, per month so that no midnight comes between."""
    workspace.kubectl(
        "annotate",
        "namespace",
        workspace.namespace,
        "--overwrite",
        f"kubechain.humanlayer.dev/budget-tokens={tokens}",
        "kubechain.humanlayer.dev/budget-period=month",
    )


def assert_waits(workspace: Workspace, name: str, words: str) -> None:
    def waits() -> bool:
        return words in workspace.kubectl.get("task", name).get("status", {}).get("statusDetail", "")

    eventually(waits, SOON, what=f"Task {name} to wait: {words}")


@pytest.mark.failure("budget-namespace")
def test_tasks_of_a_namespace_that_used_up_its_budget_wait(workspace: Workspace, witness: Witness) -> None:
    """What counts are also Tasks that are gone, and controllers that died."""
    apply_priced_agent(workspace, call_nobody(turns=0))
    set_budget(workspace, "2000")
    workspace.kubectl.apply(manifests.task("brief", "go", ttlSecondsAfterFinished=0))
    eventually(lambda: workspace.kubectl.list("task") == [], SOON, what="the end of the first Task")
    workspace.kill("task-controller")
    workspace.run_task("second", "go")
    workspace.kubectl.apply(manifests.task("third", "go"))
    assert_waits(workspace, "third", "has used up its budget of 2,000 tokens")
    (condition,) = workspace.kubectl.get("task", "third")["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("WithinNamespaceBudget", "False")
    set_budget(workspace, "2500")
    task = workspace.kubectl.finish("third")
    conditions = {c["type"]: c["status"] for c in task["status"]["conditions"]}
    assert conditions == {"WithinNamespaceBudget": "True", "Complete": "True"}
    assert_told("budget-namespace", witness, "third")


@pytest.mark.failure("budget-namespace-misread")
def test_a_budget_that_is_no_number_bounds_everything(workspace: Workspace, witness: Witness) -> None:
    apply_priced_agent(workspace, call_nobody(turns=0))
    set_budget(workspace, "lots")
    workspace.kubectl.apply(manifests.task("patient", "go"))
    assert_waits(workspace, "patient", 'is "lots"')
    set_budget(workspace, "5000")
    workspace.kubectl.finish("patient")
    assert_told("budget-namespace-misread", witness, "patient")
