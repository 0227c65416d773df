"""When a Task's budget ends it, and whose use counts for it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from kubechain_common.api.turn_calls import child_names
from kubechain_common.api.v1alpha1 import Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.conversation import Message, MessageToolCall, TokenUsage, ToolCallFunction
from kubechain_common.api.v1alpha1.money import LLMPrices
from kubechain_common.api.v1alpha1.task import TaskPhase
from kubechain_common.kube.client import KubeClient
from kubechain_common.messages import LLMResult, ObjectRef
from kubechain_common.testing.builders import NOW, build_agent, build_call, build_llm, build_mcp_server, build_task
from kubechain_task_controller.core.namespace_budget import NamespaceBudget
from kubechain_task_controller.core.plan import Above, TaskPlan, TaskSnapshot
from kubechain_task_controller.core.spent import Spent
from kubechain_task_controller.core.task_decision import decide_task
from kubechain_task_controller.core.tool_catalog import build_catalog
from kubechain_task_controller.delegation_tree import DelegationTree
from kubechain_task_controller.watched import Watched

PRICES = LLMPrices(input_per_million="2.50", output_per_million="10")
AGENT = build_agent(mcpServers=[{"name": "fetch"}])
CATALOG = build_catalog(AGENT, {"fetch": build_mcp_server(tools=("fetch",))}, {}, {})


def decide(task: Task, **parts: Any) -> TaskPlan:
    prices = {"prices": PRICES, "answer_prices": PRICES}
    defaults: dict[str, Any] = {"agent": AGENT, "llm": ObjectRef.of(build_llm()), "catalog": CATALOG, **prices}
    return decide_task(TaskSnapshot(task=task, now=NOW, **{**defaults, **parts}))


def carried_out(task: Task, plan: TaskPlan) -> Task:
    return task.model_copy(update={"status": plan.status}) if plan.status else task


def started(**spec: Any) -> Task:
    task = build_task(**spec)
    return carried_out(task, decide(task))


def answer(*tools: str, tokens: int = 1000) -> LLMResult:
    calls = [MessageToolCall(id=f"c{n}", function=ToolCallFunction(name=name)) for n, name in enumerate(tools)]
    message = Message(role="assistant", content="" if calls else "done", tool_calls=calls or None)
    usage = TokenUsage(input_tokens=tokens, total_tokens=tokens)
    return LLMResult(task=ObjectRef.of(build_task()), turn=1, outcome="Message", message=message, usage=usage)


def reason(plan: TaskPlan) -> str:
    assert plan.status is not None
    assert plan.status.phase == TaskPhase.FAILED
    (condition,) = [c for c in plan.status.conditions if c.type == "Failed"]
    return condition.reason


@pytest.mark.parametrize(
    ("budget", "sentence"),
    [
        ({"tokens": 1000}, "The Task used 1,000 of its budget of 1,000 tokens"),
        ({"cost": "0.0025"}, "The Task used 0.0025 USD of its budget of 0.0025 USD"),
        ({"cost": "0.001", "tokens": 9999}, "The Task used 0.0025 USD of its budget of 0.001 USD"),
    ],
)
def test_a_budget_that_is_used_up_ends_the_task_before_it_calls_anything(budget: Any, sentence: str) -> None:
    plan = decide(started(budget=budget), result=answer("fetch__fetch"))
    assert reason(plan) == "BudgetExceeded"
    assert plan.status is not None
    assert (plan.status.error, plan.status.status_detail) == (sentence, sentence)
    assert [(e.type, e.reason, e.message) for e in plan.events] == [("Warning", "BudgetExceeded", sentence)]
    assert (plan.children, plan.send, plan.consumed) == ((), False, True)
    assert plan.status.token_usage == TokenUsage(input_tokens=1000, total_tokens=1000)
    assert plan.status.context_window[-1].role == "assistant"


@pytest.mark.parametrize("budget", [{"tokens": 1001}, {"cost": "0.002500001"}, None])
def test_a_budget_that_is_not_used_up_changes_nothing(budget: Any) -> None:
    plan = decide(started(**({"budget": budget} if budget else {})), result=answer("fetch__fetch"))
    assert plan.status is not None
    assert plan.status.phase == TaskPhase.TOOL_CALLS_PENDING
    assert len(plan.children) == 1


def test_an_answer_is_kept_though_it_costs_more_than_was_left() -> None:
    plan = decide(started(budget={"tokens": 10}), result=answer())
    assert plan.status is not None
    assert plan.status.phase == TaskPhase.FINAL_ANSWER


def with_calls_done(**spec: Any) -> tuple[Task, dict[str, TaskRunToolCall]]:
    task = started(**spec)
    task = carried_out(task, decide(task, result=answer("fetch__fetch")))
    (name,) = child_names(task, 1, 1)
    return task, {name: build_call(name, task=task, toolCallId="c0", status={"phase": "Succeeded", "result": "r"})}


def test_what_sub_agents_used_counts_when_they_come_back() -> None:
    task, children = with_calls_done(budget={"tokens": 5000})
    within = decide(task, children=children, spent_below=Spent(total=3999))
    assert within.send
    plan = decide(task, children=children, spent_below=Spent(total=4000))
    assert reason(plan) == "BudgetExceeded"
    assert plan.status is not None
    assert plan.status.error == "The Task and its sub-agents used 5,000 of its budget of 5,000 tokens"
    assert (plan.status.turn, plan.status.context_window[-1].role, plan.status.message_count) == (1, "tool", 4)
    assert not plan.send


def test_a_task_ends_when_the_budget_of_the_one_that_it_works_for_is_used_up() -> None:
    above = (Above(build_task("boss", budget={"tokens": 3000}), Spent(total=2000)),)
    plan = decide(started(), result=answer("fetch__fetch"), above=above)
    assert reason(plan) == "BudgetExceeded"
    assert plan.status is not None
    assert plan.status.error == 'Task "boss", which this one works for, used 3,000 of its budget of 3,000 tokens'


def test_a_used_up_budget_keeps_a_task_from_starting_and_takes_a_request_back() -> None:
    above = (Above(build_task("boss", budget={"tokens": 3000}), Spent(total=3000)),)
    assert reason(decide(build_task(), above=above)) == "BudgetExceeded"
    plan = decide(started(), above=above)
    assert reason(plan) == "BudgetExceeded"
    assert plan.withdraw


@pytest.mark.parametrize(
    ("prices", "budget"),
    [(None, {"cost": "1"}), (PRICES, {"cost": "1", "currency": "EUR"})],
    ids=["no prices", "in another currency"],
)
def test_a_budget_in_money_waits_for_prices_in_its_currency(prices: Any, budget: Any) -> None:
    currency = budget.get("currency", "USD")
    sentence = f'Waiting for LLM "gpt-4o" to have prices in {currency}: the Task has a budget of 1 {currency}'
    task = build_task(budget=budget)
    plan = decide(task, prices=prices)
    assert plan.status is not None
    assert (plan.status.phase, plan.status.status_detail) == (TaskPhase.PENDING, sentence)
    fitting = LLMPrices(currency=currency, input_per_million="1", output_per_million="1")
    assert decide(carried_out(task, plan), prices=fitting).send


def test_a_running_task_waits_for_prices_that_were_taken_away() -> None:
    task, children = with_calls_done(budget={"cost": "1"})
    plan = decide(task, children=children, prices=None)
    assert not plan.send
    task = carried_out(task, plan)
    plan = decide(task, prices=None)
    assert plan.status is not None
    assert plan.status.status_detail.startswith('Waiting for LLM "gpt-4o" to have prices')
    assert not plan.send
    assert decide(carried_out(task, plan)).send


# --- the tree


def spending(name: str, tokens: int, *, call: TaskRunToolCall | None = None, **spec: Any) -> Task:
    metadata: dict[str, Any] = {}
    if call is not None:
        spec["delegatedFrom"] = {"toolCallRef": {"name": call.name}, "depth": 1}
        metadata["ownerReferences"] = [call.build_owner_reference().to_wire()]
    return build_task(name, status={"tokenUsage": {"totalTokens": tokens}}, metadata=metadata, **spec)


def delegation(name: str, task: Task) -> TaskRunToolCall:
    return build_call(name, task=task, toolType="DelegateToAgent")


def test_the_tree_of_a_task_is_all_that_work_for_it() -> None:
    watched = Watched.build(cast("KubeClient", None), "")
    boss = spending("boss", 1, budget={"tokens": 50})
    asks_lead, looks_up = delegation("asks-lead", boss), build_call("looks-up", task=boss)
    lead = spending("lead", 10, call=asks_lead, budget={"tokens": 20})
    asks_hand = delegation("asks-hand", lead)
    hand = spending("hand", 100, call=asks_hand)
    pretender = spending("pretender", 1000, delegatedFrom={"toolCallRef": {"name": "asks-lead"}, "depth": 1})
    for task in (boss, lead, hand, pretender):
        watched.tasks.observe(task)
    for call in (asks_lead, looks_up, asks_hand):
        watched.calls.observe(call)
    tree = DelegationTree(watched)
    assert tree.spent_below(boss).total == 110
    assert tree.spent_below(hand) == Spent()
    found = [(above.task.name, above.spent.total) for above in tree.find_budgets_above(hand)]
    assert found == [("lead", 110), ("boss", 111)]
    assert tree.find_budgets_above(pretender) == ()
    assert tree.find_budgets_above(boss) == ()


def test_a_turn_that_follows_tool_calls_waits_for_the_budget_of_the_namespace() -> None:
    task, children = with_calls_done()
    over: Any = {
        "namespace_budget": NamespaceBudget("default", "day", tokens=1000),
        "spent_in_namespace": Spent(total=1000),
    }
    plan = decide(task, children=children, **over)
    assert plan.status is not None
    assert (plan.status.turn, plan.send) == (2, False)
    again = decide(carried_out(task, plan), **over)
    assert again.status is not None
    assert (again.status.status, again.send) == ("Pending", False)


def test_a_turn_that_follows_tool_calls_waits_for_prices() -> None:
    task, children = with_calls_done(budget={"cost": "1"})
    plan = decide(task, children=children, prices=None)
    assert plan.status is not None
    assert (plan.status.turn, plan.send) == (2, False)
