"""Whether a Task may ask its model again: budgets of the Task and of those that it works for.

A budget is looked at before a request, never while one is under way: what is on its way is paid for all the same. A
budget in money can not be kept without prices in its currency, so a Task waits for them rather than go on unbounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from kubechain_common.api.v1alpha1.money import DEFAULT_CURRENCY
from kubechain_common.api.v1alpha1.status import Condition, set_condition, shorten
from kubechain_common.api.v1alpha1.task import TaskBudget, TaskStatus
from kubechain_task_controller.core.plan import TaskSnapshot
from kubechain_task_controller.core.spent import Money, Spent, spent_by

WITHIN = "WithinNamespaceBudget"
"""Type of the condition; a Task that never had to wait has none."""
USED_UP = "NamespaceBudgetUsedUp"
UNREADABLE = "NamespaceBudgetUnreadable"


@dataclass(frozen=True)
class Bounds:
    """Tokens and money that may be used; None bounds nothing."""

    tokens: int | None = None
    cost: Money | None = None

    @classmethod
    def of(cls, budget: TaskBudget | None) -> Bounds:
        if budget is None:
            return cls()
        cost = Money(Decimal(budget.cost), budget.currency or DEFAULT_CURRENCY) if budget.cost is not None else None
        return cls(budget.tokens, cost)

    def find_used_up(self, spent: Spent) -> str:
        """The first bound that is used up, with what was used; empty if none is."""
        if self.tokens is not None and spent.total >= self.tokens:
            return f"{spent.total:,} of its budget of {self.tokens:,} tokens"
        if self.cost is not None and (used := spent.cost_in(self.cost.currency)) >= self.cost.amount:
            return f"{Money(used, self.cost.currency)} of its budget of {self.cost}"
        return ""


def find_exceeded(snapshot: TaskSnapshot, status: TaskStatus | None = None) -> str:
    """Which budget is used up, with its numbers; empty if none is. ``status`` is the one that is about to be written,
    if any.
    """
    now, before = spent_by(status or snapshot.task.status), spent_by(snapshot.task.status)
    used = Bounds.of(snapshot.task.spec.budget).find_used_up(now + snapshot.spent_below)
    if used:
        return f"The Task{_with_sub_agents(snapshot.spent_below)} used {used}"
    for above in snapshot.above:
        used = Bounds.of(above.task.spec.budget).find_used_up(above.spent + (now - before))
        if used:
            return f'Task "{above.task.name}", which this one works for, used {used}'
    return ""


def find_unpriced(snapshot: TaskSnapshot) -> str:
    """What the Task waits for because a budget in money can not be kept without it; empty if it waits for nothing."""
    prices = snapshot.prices
    known = (prices.currency or DEFAULT_CURRENCY) if prices is not None else None
    name = snapshot.llm.name if snapshot.llm is not None else ""
    for who, bounds in _bounds_of_all(snapshot):
        cost = bounds.cost
        if cost is not None and cost.currency != known:
            return f'Waiting for LLM "{name}" to have prices in {cost.currency}: {who} has a budget of {cost}'
    return ""


def _bounds_of_all(snapshot: TaskSnapshot) -> list[tuple[str, Bounds]]:
    own = [("the Task", Bounds.of(snapshot.task.spec.budget))]
    above = [(f'Task "{above.task.name}"', Bounds.of(above.task.spec.budget)) for above in snapshot.above]
    budget = snapshot.namespace_budget
    namespace = [(f'namespace "{budget.namespace}"', Bounds(cost=budget.cost))] if budget is not None else []
    return own + above + namespace


def find_namespace_wait(snapshot: TaskSnapshot) -> str:
    """Why the Task waits for the budget of its namespace; empty if it does not."""
    budget = snapshot.namespace_budget
    return budget.find_wait(snapshot.spent_in_namespace, snapshot.now) if budget is not None else ""


def mark_outside(snapshot: TaskSnapshot, reason: str, detail: str) -> dict[str, object]:
    """The part of a status whose Task waits for the budget of its namespace."""
    return _mark(snapshot, "False", reason, detail)


def mark_within(snapshot: TaskSnapshot) -> dict[str, object]:
    """The part of a status whose Task goes on; nothing for one that never waited."""
    if not any(c.type == WITHIN and c.status == "False" for c in snapshot.task.status.conditions):
        return {}
    return _mark(snapshot, "True", "WithinBudget", "The Task goes on")


def _mark(snapshot: TaskSnapshot, status: Literal["True", "False"], reason: str, message: str) -> dict[str, object]:
    condition = Condition(
        type=WITHIN,
        status=status,
        reason=reason,
        message=shorten(message),
        last_transition_time=snapshot.now,
        observed_generation=snapshot.task.metadata.generation,
    )
    return {"conditions": set_condition(snapshot.task.status.conditions, condition)}


def _with_sub_agents(spent_below: Spent) -> str:
    return " and its sub-agents" if spent_below else ""
