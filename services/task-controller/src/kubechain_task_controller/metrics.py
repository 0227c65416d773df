"""Prometheus metrics of Tasks: how they ended, and what models used, by who used it.

They begin at nothing with the process, as counters do.
"""

from __future__ import annotations

from prometheus_client import Counter, Histogram

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
ENDED = Counter(
    "kubechain_tasks_ended_total", "Tasks that ended, by their last phase.", ["namespace", "agent", "phase"]
)
SECONDS = Histogram(
    "kubechain_task_seconds",
    "From a Task's start to its end, in seconds: from an instant to weeks.",
    ["phase"],
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600),
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


def count_end(task: Task) -> None:
    """Counts a Task that has just ended; a crash between the status and this loses it here only."""
    phase = task.status.phase or ""
    ENDED.labels(task.namespace, task.spec.agent_ref.name, phase).inc()
    if task.status.start_time is not None and task.status.completion_time is not None:
        lasted = task.status.completion_time - task.status.start_time
        SECONDS.labels(phase).observe(max(0.0, lasted.total_seconds()))
