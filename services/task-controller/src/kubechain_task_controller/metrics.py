"""Prometheus metrics of what models used, by who used it. They begin at nothing with the process, as counters do."""

from __future__ import annotations

from prometheus_client import Counter

from kubechain_common.api.v1alpha1 import Task
from kubechain_task_controller.core.plan import Turn

TOKENS = Counter(
    "kubechain_task_tokens_total",
    "Tokens of answered turns by kind: input (without cached), cached_input, output.",
    ["namespace", "agent", "llm", "kind"],
)
COST = Counter(
    "kubechain_task_cost_total",
    "Cost of answered turns, by the prices of the LLM at the time of the answer.",
    ["namespace", "agent", "llm", "currency"],
)


def count_turn(task: Task, llm: str, turn: Turn) -> None:
    """Counts an answered turn; a crash between the status and this loses it here only."""
    who = (task.namespace, task.spec.agent_ref.name, llm)
    cached = turn.usage.cached_input_tokens or 0
    TOKENS.labels(*who, "input").inc(max(0, turn.usage.input_tokens - cached))
    TOKENS.labels(*who, "cached_input").inc(max(0, cached))
    TOKENS.labels(*who, "output").inc(max(0, turn.usage.output_tokens))
    if turn.cost is not None:
        COST.labels(*who, turn.cost.currency).inc(float(turn.cost.amount))
