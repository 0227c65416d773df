"""Budgets, prices and periods of a Task that is under way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.api.v1alpha1.conversation import Message, MessageToolCall, TokenUsage, ToolCallFunction
from kubechain_common.api.v1alpha1.money import LLMPrices
from kubechain_common.api.v1alpha1.task import TaskPhase
from kubechain_common.messages import LLMResult, ObjectRef
from kubechain_common.testing.builders import NOW, build_agent, build_call, build_llm, build_mcp_server, build_task
from kubechain_task_controller.core.namespace_budget import NamespaceBudget
from kubechain_task_controller.core.periods import count_for_periods
from kubechain_task_controller.core.plan import TaskPlan, TaskSnapshot
from kubechain_task_controller.core.spent import Spent
from kubechain_task_controller.core.task_decision import decide_task
from kubechain_task_controller.core.tool_calls import child_names
from kubechain_task_controller.core.tool_catalog import build_catalog

PRICES = LLMPrices(input_per_million="2.50", output_per_million="10")
AGENT = build_agent(mcpServers=[{"name": "fetch"}])
CATALOG = build_catalog(AGENT, {"fetch": build_mcp_server(tools=("fetch",))}, {}, {})
BUDGET = NamespaceBudget("default", "day", tokens=1000)


def decide(task: Task, **parts: Any) -> TaskPlan:
    defaults: dict[str, Any] = {"agent": AGENT, "llm": ObjectRef.of(build_llm()), "catalog": CATALOG, "prices": PRICES}
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


def with_calls_done(**spec: Any) -> Any:
    task = started(**spec)
    task = carried_out(task, decide(task, result=answer("fetch__fetch")))
    (name,) = child_names(task, 1, 1)
    return task, {name: build_call(name, task=task, toolCallId="c0", status={"phase": "Succeeded", "result": "r"})}


def test_a_turn_that_follows_tool_calls_waits_for_the_budget_of_the_namespace() -> None:
    task, children = with_calls_done()
    over: Any = {"namespace_budget": BUDGET, "spent_in_namespace": Spent(total=1000)}
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


def after_turn(task: Task, tokens: int, at: datetime) -> Task:
    """The Task after an answer."""
    waiting = {"phase": TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM, "turn": 1, "start_time": task.status.start_time or at}
    task = task.model_copy(update={"status": task.status.model_copy(update=waiting)})
    result = answer(tokens=tokens)
    return carried_out(task, decide_task(TaskSnapshot(task=task, now=at, agent=AGENT, result=result)))


def used_in(task: Task, period: str) -> int:
    return count_for_periods(task).get(("default", period), Spent()).total


def test_a_task_that_goes_on_over_midnight_counts_for_both_days() -> None:
    evening = datetime(2026, 11, 29, 23, 0, tzinfo=UTC)
    task = after_turn(after_turn(build_task(), 5, evening), 7, evening)
    assert task.status.usage_before is None
    assert (used_in(task, "2026-11-29"), used_in(task, "2026-11")) == (12, 12)
    task = after_turn(task, 1, evening + timedelta(hours=2))
    assert (used_in(task, "2026-11-30"), used_in(task, "2026-11")) == (1, 13)
    assert task.status.start_time == evening
