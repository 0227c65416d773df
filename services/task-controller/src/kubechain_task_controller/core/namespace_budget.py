"""What the Tasks of a namespace may use in a day or a month: annotations of the Namespace (docs/decisions/0016).

    kubechain.humanlayer.dev/budget-tokens: "5000000"
    kubechain.humanlayer.dev/budget-cost: "25.00"
    kubechain.humanlayer.dev/budget-currency: USD      (unless set)
    kubechain.humanlayer.dev/budget-period: day        (unless set; or month; in UTC)

An annotation that can not be read bounds everything, because whoever wrote it wanted a bound.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from kubechain_common.api.v1alpha1.meta import GROUP
from kubechain_common.api.v1alpha1.money import DEFAULT_CURRENCY
from kubechain_task_controller.core.periods import KINDS, Kind, end_of, period_of
from kubechain_task_controller.core.spent import Money, Spent

TOKENS = f"{GROUP}/budget-tokens"
COST = f"{GROUP}/budget-cost"
CURRENCY = f"{GROUP}/budget-currency"
PERIOD = f"{GROUP}/budget-period"

_WHOLE = re.compile(r"[0-9]{1,18}")
_AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_LETTERS = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True)
class NamespaceBudget:
    """The budget of a namespace. ``problem`` says which annotation can not be read, and why."""

    namespace: str
    kind: Kind = "day"
    tokens: int | None = None
    cost: Money | None = None
    problem: str = ""

    def period(self, now: datetime) -> str:
        return period_of(now, self.kind)

    def seconds_left(self, now: datetime) -> float:
        """Seconds until the next period begins."""
        return (end_of(now, self.kind) - now).total_seconds()

    def find_wait(self, spent: Spent, now: datetime) -> str:
        """Why Tasks of the namespace have to wait, in the same sentence for as long as nothing changes; empty if they
        need not.
        """
        if self.problem:
            return f'Waiting for the budget of namespace "{self.namespace}" to be corrected: {self.problem}'
        if self.tokens is not None and spent.total >= self.tokens:
            return self._used_up(f"{self.tokens:,} tokens", now)
        if self.cost is not None and spent.cost_in(self.cost.currency) >= self.cost.amount:
            return self._used_up(str(self.cost), now)
        return ""

    def _used_up(self, what: str, now: datetime) -> str:
        end = end_of(now, self.kind).strftime("%Y-%m-%dT%H:%MZ")
        return (
            f'Namespace "{self.namespace}" has used up its budget of {what} for {self.period(now)}:'
            f" waiting until {end}, or for a larger budget"
        )


def read_budget(namespace: str, annotations: Mapping[str, str]) -> NamespaceBudget | None:
    """The budget that the annotations set; None for a namespace without one."""
    tokens, cost = annotations.get(TOKENS), annotations.get(COST)
    if tokens is None and cost is None:
        return None
    currency, kind = annotations.get(CURRENCY, DEFAULT_CURRENCY), annotations.get(PERIOD, "day")
    for name, text, fits, wanted in (
        (TOKENS, tokens, _WHOLE, "a whole number"),
        (COST, cost, _AMOUNT, 'a decimal number like "2.50"'),
        (CURRENCY, currency, _LETTERS, "three capital letters like USD"),
    ):
        if text is not None and not fits.fullmatch(text):
            return NamespaceBudget(namespace, problem=f'annotation {name} is "{text[:64]}", which is not {wanted}')
    known = next((k for k in KINDS if k == kind), None)
    if known is None:
        return NamespaceBudget(namespace, problem=f'annotation {PERIOD} is "{kind[:64]}", which is not day or month')
    return NamespaceBudget(
        namespace,
        known,
        int(tokens) if tokens is not None else None,
        Money(Decimal(cost), currency) if cost is not None else None,
    )
