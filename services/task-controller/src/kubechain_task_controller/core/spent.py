"""What was used, in tokens and in money, and how it adds up. Exact: nothing is rounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal

from kubechain_common.api.v1alpha1.conversation import TokenUsage
from kubechain_common.api.v1alpha1.money import DEFAULT_CURRENCY, LLMPrices
from kubechain_common.api.v1alpha1.task import TaskStatus

_EXACT = Context(prec=400)
"""More digits than any sum of ours can have."""
_PER_MILLION = -6

_Tokens = Callable[[int, int], int]
_Amounts = Callable[[Decimal, Decimal], Decimal]


@dataclass(frozen=True)
class Money:
    """An amount in one currency."""

    amount: Decimal
    currency: str

    def __str__(self) -> str:
        return f"{write_amount(self.amount)} {self.currency}"


@dataclass(frozen=True)
class Spent:
    """Tokens by their kind, and money by its currency; ``tasks`` is how many Tasks used them."""

    tasks: int = 0
    input: int = 0
    output: int = 0
    total: int = 0
    cached: int = 0
    costs: Mapping[str, Decimal] = field(default_factory=dict)

    @classmethod
    def of(cls, usage: TokenUsage | None, cost: str | None, currency: str | None, *, tasks: int = 1) -> Spent:
        """What a status says that was used."""
        used = usage or TokenUsage()
        return cls(
            tasks,
            used.input_tokens,
            used.output_tokens,
            used.total_tokens,
            used.cached_input_tokens or 0,
            {currency or DEFAULT_CURRENCY: Decimal(cost)} if cost is not None else {},
        )

    def __bool__(self) -> bool:
        return any((self.tasks, self.input, self.output, self.total, self.cached, *self.costs.values()))

    def __add__(self, other: Spent) -> Spent:
        return self._with(other, lambda one, two: one + two, _EXACT.add)

    def __sub__(self, other: Spent) -> Spent:
        """What is left of each part, never below nothing: what was used is not given back."""
        return self._with(
            other,
            lambda one, two: max(0, one - two),
            lambda one, two: max(Decimal(0), _EXACT.subtract(one, two)),
        )

    def or_more(self, other: Spent) -> Spent:
        """The larger one of each part."""
        return self._with(other, max, max)

    def cost_in(self, currency: str) -> Decimal:
        return self.costs.get(currency, Decimal(0))

    def _with(self, other: Spent, tokens: _Tokens, money: _Amounts) -> Spent:
        currencies = {*self.costs, *other.costs}
        return Spent(
            tokens(self.tasks, other.tasks),
            tokens(self.input, other.input),
            tokens(self.output, other.output),
            tokens(self.total, other.total),
            tokens(self.cached, other.cached),
            {c: amount for c in currencies if (amount := money(self.cost_in(c), other.cost_in(c)))},
        )


def spent_by(status: TaskStatus) -> Spent:
    """What a Task has used so far."""
    if status.token_usage is None and status.cost is None:
        return Spent()
    return Spent.of(status.token_usage, status.cost, status.currency)


def price(usage: TokenUsage, prices: LLMPrices | None) -> Money | None:
    """What a turn costs; None for an LLM without prices.

    Input from the cache and into it is a part of the input.
    """
    if prices is None:
        return None
    cached, written = usage.cached_input_tokens or 0, usage.cache_write_tokens or 0
    lines = (
        (max(0, usage.input_tokens - cached - written), prices.input_per_million),
        (cached, prices.cached_input_per_million or prices.input_per_million),
        (written, prices.cache_write_per_million or prices.input_per_million),
        (usage.output_tokens, prices.output_per_million),
    )
    total = Decimal(0)
    for tokens, per_million in lines:
        total = _EXACT.add(total, _EXACT.multiply(Decimal(tokens), Decimal(per_million)))
    return Money(_EXACT.scaleb(total, _PER_MILLION), prices.currency or DEFAULT_CURRENCY)


def write_amount(amount: Decimal) -> str:
    """The amount as text, without an exponent and without zeros at its end that say nothing."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def add_cost(status: TaskStatus, cost: Money | None) -> tuple[dict[str, object], str]:
    """The parts of a status that hold its cost with a turn's added, and why that could not be added, if so.

    A Task counts in one currency: that of the first turn with a price.
    """
    if cost is None:
        return {}, ""
    if status.currency is not None and status.cost is not None and status.currency != cost.currency:
        return {}, f"{cost} are not added to status.cost, which is in {status.currency}: the LLM has other prices now"
    before = Decimal(status.cost) if status.cost is not None else Decimal(0)
    return {"cost": write_amount(_EXACT.add(before, cost.amount)), "currency": cost.currency}, ""
