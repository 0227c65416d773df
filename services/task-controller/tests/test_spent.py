"""What tokens cost, and how sums survive restarts and deletions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from pydantic import ValidationError

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.api.v1alpha1.conversation import TokenUsage
from kubechain_common.api.v1alpha1.money import LLMPrices
from kubechain_common.api.v1alpha1.task import TaskStatus
from kubechain_common.testing.arbitrary import fuzz
from kubechain_common.testing.builders import build_task
from kubechain_task_controller.core.agent_usage import count_for_agent
from kubechain_task_controller.core.plan import Turn
from kubechain_task_controller.core.spent import Spent, add_cost, price, spent_by, write_amount
from kubechain_task_controller.core.tally import Tally
from kubechain_task_controller.metrics import count_end, count_turn

KEY = ("default", "my-assistant")
TOKENS = st.integers(0, 2**63)
AMOUNTS = st.decimals(0, 10**9, places=9, allow_nan=False, allow_infinity=False).map(lambda d: f"{d:f}"[:19])


def prices(**given: str) -> LLMPrices:
    return LLMPrices.model_validate({"inputPerMillion": "3", "outputPerMillion": "15", **given})


def cost(usage: TokenUsage, **given: str) -> str:
    money = price(usage, prices(**given))
    assert money is not None
    return str(money)


@pytest.mark.parametrize(
    ("usage", "given", "expected"),
    [
        (TokenUsage(input_tokens=1_000_000), {}, "3 USD"),
        (TokenUsage(input_tokens=1, output_tokens=1), {"currency": "EUR"}, "0.000018 EUR"),
        (TokenUsage(input_tokens=10, cached_input_tokens=4), {}, "0.00003 USD"),
        (TokenUsage(input_tokens=10, cached_input_tokens=4), {"cachedInputPerMillion": "0.3"}, "0.0000192 USD"),
        (TokenUsage(input_tokens=10, cached_input_tokens=4), {"cachedInputPerMillion": "0"}, "0.000018 USD"),
        (TokenUsage(input_tokens=10, cache_write_tokens=6), {"cacheWritePerMillion": "3.75"}, "0.0000345 USD"),
        (TokenUsage(input_tokens=1, cached_input_tokens=4), {"cachedInputPerMillion": "1"}, "0.000004 USD"),
        (TokenUsage(), {}, "0 USD"),
    ],
    ids=["input", "currency", "no price of its own", "cached", "cached for nothing", "written", "odd sum", "nothing"],
)
def test_a_turn_costs_what_its_parts_cost(usage: TokenUsage, given: dict[str, str], expected: str) -> None:
    assert cost(usage, **given) == expected


def test_without_prices_nobody_knows_what_it_costs() -> None:
    assert price(TokenUsage(input_tokens=5), None) is None
    assert add_cost(TaskStatus(), None) == ({}, "")


@pytest.mark.parametrize("given", ["", "1e3", "-1", "1.", ".5", "1,5", "NaN", "1" * 10])
def test_an_amount_that_can_not_be_calculated_with_is_refused(given: str) -> None:
    with pytest.raises(ValidationError):
        prices(inputPerMillion=given)


@fuzz
@given(st.lists(st.tuples(TOKENS, TOKENS, AMOUNTS, AMOUNTS), max_size=4))
def test_costs_add_up_without_rounding(turns: list[tuple[int, int, str, str]]) -> None:
    status, wanted = TaskStatus(), Fraction(0)
    for read, written, per_read, per_written in turns:
        usage = TokenUsage(input_tokens=read, output_tokens=written)
        update, problem = add_cost(status, price(usage, prices(inputPerMillion=per_read, outputPerMillion=per_written)))
        assert problem == ""
        status = TaskStatus.model_validate({**status.model_dump(), **update})
        wanted += (read * Fraction(per_read) + written * Fraction(per_written)) / 1_000_000
    assert Fraction(status.cost or "0") == wanted


@pytest.mark.parametrize(("amount", "text"), [("1.500", "1.5"), ("1E+3", "1000"), ("100", "100"), ("0E-9", "0")])
def test_an_amount_is_written_plainly(amount: str, text: str) -> None:
    assert write_amount(Decimal(amount)) == text


# --- sums over Tasks


def using(name: str, tokens: int, cost: str = "") -> Task:
    money = {"cost": cost, "currency": "USD"} if cost else {}
    return build_task(name, status={"tokenUsage": {"inputTokens": tokens, "totalTokens": tokens}, **money})


def tally(*tasks: Task) -> Tally[tuple[str, str]]:
    sums = Tally(count_for_agent)
    for task in tasks:
        sums.note(None, task)
    return sums


def test_a_task_counts_once_however_often_it_changes() -> None:
    sums = tally(using("a", 1), using("b", 2, "0.5"))
    sums.note(using("b", 2, "0.5"), using("b", 5, "0.75"))
    sums.note(using("b", 5, "0.75"), using("b", 5, "0.75"))
    sums.note(None, build_task("c"))
    assert sums.total(KEY) == Spent(2, 6, 0, 6, 0, {"USD": Decimal("0.75")})


def test_what_a_deleted_task_used_is_carried_on_once_the_sum_is_written_down() -> None:
    sums = tally(using("a", 1), using("b", 2))
    sums.note(using("a", 1), None)
    assert sums.total(KEY).total == 2
    sums.resume(KEY, Spent(), Spent())
    sums.note(using("b", 2), None)
    assert (sums.total(KEY).total, sums.carried(KEY).total, sums.live(KEY)) == (2, 2, Spent())
    sums.forget(KEY)
    assert sums.total(KEY) == Spent()


@pytest.mark.parametrize(
    ("total", "carried", "live", "expected"),
    [
        (10, 4, 6, 10),  # nothing happened meanwhile
        (10, 4, 8, 12),  # two more were used, and not written down
        (10, 4, 1, 10),  # what used five is gone
        (10, 10, 0, 10),
        (0, 0, 7, 7),  # never written
    ],
)
def test_a_new_leader_goes_on_from_what_was_written_down(total: int, carried: int, live: int, expected: int) -> None:
    sums = tally(using("a", live))
    sums.resume(KEY, Spent(total=total), Spent(total=carried))
    assert sums.total(KEY).total == expected
    sums.resume(KEY, Spent(total=1000), Spent())
    assert sums.total(KEY).total == expected
    sums.begin_term()
    sums.resume(KEY, Spent(total=1000), Spent())
    assert sums.total(KEY).total == 1000


@fuzz
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=12))
def test_a_sum_never_shrinks_and_is_what_was_used(steps: list[tuple[str, int]]) -> None:
    """A step uses so many tokens in a Task of this name, or, with none, deletes it."""
    sums, known, used = tally(), dict[str, Task](), 0
    sums.resume(KEY, Spent(), Spent())
    for name, tokens in steps:
        old = known.pop(name, None)
        if tokens:
            before = spent_by(old.status).total if old else 0
            known[name] = using(name, before + tokens)
            used += tokens
        sums.note(old, known.get(name))
        assert sums.total(KEY).total == used


def test_an_answered_turn_is_counted_for_prometheus() -> None:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, {"namespace": "default", "agent": "my-assistant", **labels}) or 0.0

    usage = TokenUsage(input_tokens=10, cached_input_tokens=4, output_tokens=3, total_tokens=13)
    count_turn(build_task(), "counted", Turn(usage, price(usage, prices())))
    count_turn(build_task(), "free", Turn(usage))
    kinds = [value("kubechain_task_tokens_total", llm="counted", kind=k) for k in ("input", "cached_input", "output")]
    assert kinds == [6, 4, 3]
    assert value("kubechain_task_cost_total", llm="counted", currency="USD") == pytest.approx(0.000075)
    assert value("kubechain_task_cost_total", llm="free", currency="USD") == 0


def test_a_task_that_ended_is_counted_for_prometheus() -> None:
    labels = {"namespace": "default", "agent": "my-assistant", "phase": "FinalAnswer"}
    began = datetime(2026, 11, 28, 12, tzinfo=UTC)
    ended = build_task(
        status={"phase": "FinalAnswer", "startTime": began, "completionTime": began + timedelta(seconds=3)}
    )
    never_began = build_task(status={"phase": "FinalAnswer", "completionTime": began})
    before = [REGISTRY.get_sample_value("kubechain_tasks_ended_total", labels) or 0.0]
    before += [
        REGISTRY.get_sample_value(f"kubechain_task_seconds_{n}", {"phase": "FinalAnswer"}) or 0.0
        for n in ("count", "sum")
    ]
    count_end(ended)
    count_end(never_began)
    assert REGISTRY.get_sample_value("kubechain_tasks_ended_total", labels) == before[0] + 2
    assert REGISTRY.get_sample_value("kubechain_task_seconds_count", {"phase": "FinalAnswer"}) == before[1] + 1
    assert REGISTRY.get_sample_value("kubechain_task_seconds_sum", {"phase": "FinalAnswer"}) == before[2] + 3
