"""What all Tasks of an Agent used, as its status shows it."""

from __future__ import annotations

from collections.abc import Mapping

from kubechain_common.api.v1alpha1.agent import Agent, AgentUsage
from kubechain_common.api.v1alpha1.conversation import TokenUsage
from kubechain_common.api.v1alpha1.llm import LLM
from kubechain_common.api.v1alpha1.money import DEFAULT_CURRENCY
from kubechain_common.api.v1alpha1.task import Task
from kubechain_task_controller.core.spent import Spent, spent_by, write_amount

AgentKey = tuple[str, str]
"""(namespace, name)"""


def count_for_agent(task: Task) -> Mapping[AgentKey, Spent]:
    """What the Task used, under the key of the Agent for which it counts."""
    spent = spent_by(task.status)
    return {(task.namespace, task.spec.agent_ref.name): spent} if spent else {}


def read_usage(usage: AgentUsage | None) -> Spent:
    if usage is None:
        return Spent()
    return Spent.of(usage.token_usage, usage.cost, usage.currency, tasks=usage.tasks)


def build_usage(spent: Spent, currency: str) -> AgentUsage | None:
    """The usage as a status shows it. None where nothing was used: it would be lines in every ``kubectl describe``."""
    if not spent:
        return None
    cost = spent.costs.get(currency)
    return AgentUsage(
        tasks=spent.tasks,
        token_usage=TokenUsage(
            input_tokens=spent.input,
            output_tokens=spent.output,
            total_tokens=spent.total,
            cached_input_tokens=spent.cached or None,
        ),
        cost=write_amount(cost) if cost is not None else None,
        currency=currency if cost is not None else None,
    )


def find_currency(agent: Agent, llm: LLM | None) -> str:
    """The currency of the LLM's prices; without prices, the one that the status shows already."""
    if llm is not None and llm.spec.prices is not None:
        return llm.spec.prices.currency or DEFAULT_CURRENCY
    shown = agent.status.usage.currency if agent.status.usage else None
    return shown or DEFAULT_CURRENCY
