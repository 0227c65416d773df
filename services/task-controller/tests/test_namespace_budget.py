"""What all Tasks of a namespace may use in a day or a month, and how that is known."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.api.v1alpha1.conversation import Message, TokenUsage
from kubechain_common.api.v1alpha1.money import LLMPrices
from kubechain_common.api.v1alpha1.task import TaskPhase, TaskStatus
from kubechain_common.kube.errors import ForbiddenError, NotFoundError, UnavailableError
from kubechain_common.kube.namespace import Namespace, keep_our_annotations
from kubechain_common.messages import LLMResult, ObjectRef
from kubechain_common.testing.arbitrary import fuzz
from kubechain_common.testing.builders import NOW, build_agent, build_llm, build_task
from kubechain_task_controller import budget_book
from kubechain_task_controller.budget_book import BudgetBook, parse_line, write_line
from kubechain_task_controller.core.namespace_budget import COST, CURRENCY, PERIOD, TOKENS, NamespaceBudget, read_budget
from kubechain_task_controller.core.periods import count_for_periods, end_of, note_turn, period_of
from kubechain_task_controller.core.plan import TaskPlan, TaskSnapshot
from kubechain_task_controller.core.spent import Money, Spent
from kubechain_task_controller.core.task_decision import decide_task
from kubechain_task_controller.watched import Watched

PRICES = LLMPrices(input_per_million="2.50", output_per_million="10")
AGENT = build_agent()
BUDGET = NamespaceBudget("default", "day", tokens=1000)
USED_UP = (
    'Namespace "default" has used up its budget of 1,000 tokens for 2026-11-23: waiting until 2026-11-24T00:00Z,'
    " or for a larger budget"
)

# --- the annotations


@pytest.mark.parametrize(
    ("annotations", "budget"),
    [
        ({}, None),
        ({PERIOD: "month"}, None),
        ({TOKENS: "5000"}, NamespaceBudget("ns", "day", tokens=5000)),
        ({TOKENS: "0", PERIOD: "month"}, NamespaceBudget("ns", "month", tokens=0)),
        ({COST: "2.50"}, NamespaceBudget("ns", "day", cost=Money(Decimal("2.50"), "USD"))),
        ({COST: "1", CURRENCY: "EUR"}, NamespaceBudget("ns", "day", cost=Money(Decimal(1), "EUR"))),
    ],
)
def test_a_budget_is_read_from_annotations(annotations: Mapping[str, str], budget: Any) -> None:
    assert read_budget("ns", annotations) == budget


@pytest.mark.parametrize(
    ("annotations", "problem"),
    [
        ({TOKENS: "lots"}, f'annotation {TOKENS} is "lots", which is not a whole number'),
        ({TOKENS: "1e6"}, f'annotation {TOKENS} is "1e6", which is not a whole number'),
        ({TOKENS: "٣"}, f'annotation {TOKENS} is "٣", which is not a whole number'),
        ({COST: "-1"}, f'annotation {COST} is "-1", which is not a decimal number like "2.50"'),
        (
            {COST: "1", CURRENCY: "euro"},
            f'annotation {CURRENCY} is "euro", which is not three capital letters like USD',
        ),
        ({COST: "1", PERIOD: "week"}, f'annotation {PERIOD} is "week", which is not day or month'),
    ],
)
def test_what_can_not_be_read_bounds_everything(annotations: Mapping[str, str], problem: str) -> None:
    budget = read_budget("ns", annotations)
    assert budget is not None
    sentence = f'Waiting for the budget of namespace "ns" to be corrected: {problem}'
    assert budget.find_wait(Spent(), NOW) == sentence


def test_a_namespace_is_kept_with_our_annotations_only() -> None:
    raw: dict[str, Any] = {
        "metadata": {"name": "a", "resourceVersion": "1", "labels": {"x": "y"}, "annotations": {TOKENS: "1", "b": "c"}},
        "spec": {"finalizers": ["kubernetes"]},
    }
    keep_our_annotations(raw)
    kept = Namespace.model_validate(raw)
    assert (kept.key, kept.metadata.annotations, kept.metadata.labels) == (("", "a"), {TOKENS: "1"}, {})


# --- days and months


@pytest.mark.parametrize(
    ("moment", "day", "month", "day_ends", "month_ends"),
    [
        ("2026-11-30T23:59:59Z", "2026-11-30", "2026-11", "2026-12-01", "2026-12-01"),
        ("2026-12-31T00:00:00Z", "2026-12-31", "2026-12", "2027-01-01", "2027-01-01"),
        ("2028-02-28T12:00:00Z", "2028-02-28", "2028-02", "2028-02-29", "2028-03-01"),
        ("2026-01-01T01:00:00+02:00", "2025-12-31", "2025-12", "2026-01-01", "2026-01-01"),
    ],
)
def test_periods_are_in_utc(moment: str, day: str, month: str, day_ends: str, month_ends: str) -> None:
    at = datetime.fromisoformat(moment)
    assert (period_of(at, "day"), period_of(at, "month")) == (day, month)
    assert (end_of(at, "day"), end_of(at, "month")) == (
        datetime.fromisoformat(f"{day_ends}T00:00:00Z"),
        datetime.fromisoformat(f"{month_ends}T00:00:00Z"),
    )


def after_turn(task: Task, tokens: int, at: datetime) -> Task:
    """The Task after an answer."""
    waiting = {"phase": TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM, "turn": 1, "start_time": task.status.start_time or at}
    task = task.model_copy(update={"status": task.status.model_copy(update=waiting)})
    message, usage = Message(role="assistant", content="done"), TokenUsage(total_tokens=tokens)
    result = LLMResult(task=ObjectRef.of(task), turn=1, outcome="Message", message=message, usage=usage)
    plan = decide_task(TaskSnapshot(task=task, now=at, agent=build_agent(), result=result))
    return task.model_copy(update={"status": plan.status})


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
    task = after_turn(task, 2, evening + timedelta(days=2))
    assert (used_in(task, "2026-12-01"), used_in(task, "2026-12"), used_in(task, "2026-11")) == (2, 2, 0)
    task = after_turn(task, 3, evening + timedelta(days=2))
    assert (used_in(task, "2026-12-01"), used_in(task, "2026-12")) == (5, 5)


def test_a_clock_that_goes_back_changes_no_period() -> None:
    midnight = datetime(2026, 12, 1, tzinfo=UTC)
    task = after_turn(after_turn(build_task(), 5, midnight - timedelta(hours=1)), 7, midnight)
    task = after_turn(task, 1, midnight - timedelta(seconds=5))
    assert (used_in(task, "2026-12-01"), used_in(task, "2026-12")) == (8, 8)


@fuzz
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50 * 24)), min_size=1, max_size=10))
def test_the_last_period_of_a_task_holds_what_it_used_there(turns: list[tuple[int, int]]) -> None:
    """Turns of so many tokens, each so many hours after the one before."""
    task, at, history = build_task(), datetime(2026, 10, 20, tzinfo=UTC), list[tuple[datetime, int]]()
    for tokens, hours in turns:
        at += timedelta(hours=hours)
        task = after_turn(task, tokens, at)
        history.append((at, tokens))
    for kind in ("day", "month"):
        period = period_of(at, cast("Any", kind))
        wanted = sum(tokens for when, tokens in history if period_of(when, cast("Any", kind)) == period)
        assert used_in(task, period) == wanted


# --- what a Task does


def decide(task: Task, **parts: Any) -> TaskPlan:
    defaults: dict[str, Any] = {"agent": AGENT, "llm": ObjectRef.of(build_llm()), "prices": PRICES}
    return decide_task(TaskSnapshot(task=task, now=NOW, **{**defaults, **parts}))


def carried_out(task: Task, plan: TaskPlan) -> Task:
    return task.model_copy(update={"status": plan.status}) if plan.status else task


def within(task: Task) -> list[tuple[str, str]]:
    return [(c.status, c.reason) for c in task.status.conditions if c.type == "WithinNamespaceBudget"]


@pytest.mark.parametrize("running", [False, True], ids=["new", "running"])
def test_a_task_waits_for_the_next_period_where_it_is(running: bool) -> None:
    task = build_task()
    if running:
        task = carried_out(task, decide(task))
    phase = TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM if running else TaskPhase.PENDING
    plan = decide(task, namespace_budget=BUDGET, spent_in_namespace=Spent(total=1000))
    assert plan.status is not None
    assert (plan.status.phase, plan.status.status, plan.status.status_detail) == (phase, "Pending", USED_UP)
    assert [(e.type, e.reason, e.message) for e in plan.events] == [("Warning", "NamespaceBudgetUsedUp", USED_UP)]
    assert (plan.send, plan.requeue_after) == (False, 12 * 3600)
    task = carried_out(task, plan)
    assert within(task) == [("False", "NamespaceBudgetUsedUp")]
    again = decide(task, namespace_budget=BUDGET, spent_in_namespace=Spent(total=1001))
    assert again == TaskPlan(requeue_after=12 * 3600)
    plan = decide(task, namespace_budget=BUDGET, spent_in_namespace=Spent(total=999))
    assert plan.send
    assert within(carried_out(task, plan)) == [("True", "WithinBudget")]


def test_money_of_a_namespace_counts_in_its_currency() -> None:
    budget = NamespaceBudget("default", "month", cost=Money(Decimal("1.5"), "USD"))
    assert decide(build_task(), namespace_budget=budget, spent_in_namespace=Spent(costs={"EUR": Decimal(9)})).send
    plan = decide(build_task(), namespace_budget=budget, spent_in_namespace=Spent(costs={"USD": Decimal("1.5")}))
    assert plan.status is not None
    assert "has used up its budget of 1.5 USD for 2026-11: waiting until 2026-12-01T00:00Z" in plan.status.status_detail
    plan = decide(build_task(), namespace_budget=budget, prices=None)
    assert plan.status is not None
    assert plan.status.status_detail == (
        'Waiting for LLM "gpt-4o" to have prices in USD: namespace "default" has a budget of 1.5 USD'
    )


def test_a_budget_that_can_not_be_read_has_no_timer() -> None:
    plan = decide(build_task(), namespace_budget=read_budget("default", {TOKENS: "x"}))
    assert (plan.send, plan.requeue_after) == (False, None)


def test_tasks_that_wait_are_woken_when_the_budget_of_their_namespace_changes() -> None:
    watched = Watched.build(cast("Any", None), "")
    woken: list[tuple[str, str]] = []
    for name, status in (("waits", "Pending"), ("runs", "Ready")):
        watched.tasks.observe(build_task(name, status={"phase": "SendContextWindowToLLM", "status": status}))
    watched.namespaces.observe(namespace(1))
    watched.wake_tasks(woken.append)
    woken.clear()
    watched.namespaces.observe(namespace(2))
    assert woken == []
    watched.namespaces.observe(namespace(3, {TOKENS: "5"}))
    assert woken == [("default", "waits")]
    assert watched.budget_of("default") == NamespaceBudget("default", "day", tokens=5)
    assert watched.budget_of("other") is None


def namespace(version: int, annotations: Mapping[str, str] | None = None) -> Namespace:
    metadata = {"name": "default", "resourceVersion": str(version), "annotations": dict(annotations or {})}
    return Namespace.model_validate({"metadata": metadata})


# --- the book


@fuzz
@given(st.integers(0, 2**60), st.decimals(0, 10**6, places=9), st.text(max_size=20))
def test_a_line_is_read_as_it_was_written(tokens: int, cost: Decimal, other: str) -> None:
    total = Spent(total=tokens, costs={"USD": cost} if cost else {})
    line = write_line("2026-11-23", total, Spent(total=tokens // 2))
    assert parse_line(line, "2026-11-23") == (total, Spent(total=tokens // 2))
    assert parse_line(line, "2026-11-24") == parse_line(other, "2026-11-23") == (Spent(), Spent())


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{",
        '{"period": "p", "tokens": "x"}',
        '{"period": "p", "tokens": 1e999}',
        '{"period": "p", "cost": {"USD": "NaN"}}',
    ],
)
def test_a_line_that_somebody_spoiled_counts_as_nothing(line: str) -> None:
    assert parse_line(line, "p") == (Spent(), Spent())


class ConfigMaps:
    """The one ConfigMap, as the API server keeps it."""

    def __init__(self) -> None:
        self.data: dict[str, str] | None = None
        self.writes = 0
        self.away = self.refuses = False
        self.written = asyncio.Event()
        self.read = asyncio.Event()

    async def request(self, method: str, path: str, *, body: Any = None, content_type: str = "") -> dict[str, Any]:
        if self.away:
            raise UnavailableError("away")
        if self.refuses and method != "GET":
            raise ForbiddenError("no right to do so")
        assert path.startswith("/api/v1/namespaces/kubechain/configmaps")
        if method == "POST":
            self.data = dict(body["data"])
        elif self.data is None:
            self.read.set()
            raise NotFoundError("no such ConfigMap")
        elif method == "PATCH":
            self.data = {k: v for k, v in {**self.data, **body["data"]}.items() if v is not None}
        if method == "GET":
            self.read.set()
        else:
            self.writes += 1
            self.written.set()
        return {"data": self.data}


def open_book(kube: ConfigMaps, *tasks: Task) -> tuple[BudgetBook, Watched]:
    """A new leader that finds these Tasks."""
    watched = Watched.build(cast("Any", None), "")
    watched.namespaces.observe(namespace(1, {TOKENS: "1000"}))
    for task in tasks:
        watched.tasks.observe(task)
    book = BudgetBook(cast("Any", kube), watched, "kubechain")
    watched.tasks.add_handler(book.note)
    return book, watched


def spender(name: str, tokens: int, *, version: int = 1) -> Task:
    status = {"tokenUsage": {"totalTokens": tokens}, "startTime": datetime.now(UTC).isoformat()}
    return build_task(name, status=status, metadata={"resourceVersion": str(version)})


async def test_what_was_used_outlives_its_task_and_the_controller() -> None:
    kube = ConfigMaps()
    book, watched = open_book(kube, spender("a", 5))
    assert (await book.find_spent(BUDGET)).total == 5
    watched.tasks.observe(spender("b", 7))
    await book.write_down(BUDGET)
    assert kube.data is not None
    assert '"tokens": 12' in kube.data["default"]
    again, _ = open_book(kube, spender("b", 9, version=2))
    assert (await again.find_spent(BUDGET)).total == 12  # "a" is gone, and that "b" used two more was not written
    await again.write_down(BUDGET)
    after, _ = open_book(kube, spender("b", 10, version=3))
    assert (await after.find_spent(BUDGET)).total == 13


async def test_a_deleted_task_counts_on_in_the_same_term() -> None:
    book, watched = open_book(ConfigMaps(), spender("a", 5))
    await book.find_spent(BUDGET)
    watched.tasks._notify(watched.tasks._store.delete(("default", "a"), 2))
    assert (await book.find_spent(BUDGET)).total == 5


async def test_nothing_is_written_twice() -> None:
    kube = ConfigMaps()
    book, watched = open_book(kube)
    watched.tasks.observe(spender("a", 5))
    for _ in range(2):
        await book.write_down(BUDGET)
    assert kube.writes == 1


async def test_a_new_leader_opens_the_book_before_anything_is_deleted() -> None:
    kube = ConfigMaps()
    book, watched = open_book(kube, spender("a", 5))
    async with asyncio.TaskGroup() as group, asyncio.timeout(5):
        running = group.create_task(book.run())
        await kube.read.wait()
        watched.tasks._notify(watched.tasks._store.delete(("default", "a"), 2))
        running.cancel()
    assert (await book.find_spent(BUDGET)).total == 5


async def test_lines_of_namespaces_that_are_gone_are_removed() -> None:
    kube = ConfigMaps()
    kube.data = {"gone": "{}"}
    book, _ = open_book(kube)
    await book.find_spent(BUDGET)
    await book.write_down(BUDGET)
    assert set(kube.data) == {"default"}


async def test_a_book_that_may_not_be_written_keeps_nothing_from_being_deleted() -> None:
    kube = ConfigMaps()
    book, _ = open_book(kube, spender("a", 5))
    await book.find_spent(BUDGET)
    kube.refuses = True
    await book.write_down(BUDGET)
    assert kube.writes == 0


async def test_what_can_not_be_written_now_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_book, "WRITE_DELAY", 0.01)
    monkeypatch.setattr(budget_book, "_BACKOFF", (0.01, 0.01))
    kube = ConfigMaps()
    book, watched = open_book(kube)
    await book.find_spent(BUDGET)
    kube.away = True
    watched.tasks.observe(spender("a", 5))
    with pytest.raises(UnavailableError):
        await book.write_down(BUDGET)
    async with asyncio.TaskGroup() as group, asyncio.timeout(5):
        running = group.create_task(book.run())
        kube.away = False
        await kube.written.wait()
        running.cancel()
    assert kube.data is not None
    assert '"tokens": 5' in kube.data["default"]


def test_a_status_without_a_start_counts_for_no_period() -> None:
    task = build_task(status={"tokenUsage": {"totalTokens": 4}})
    assert count_for_periods(task) == {}
    assert note_turn(TaskStatus(), NOW) == {}
