"""The shared rate limit: the calculation, and several replicas that keep it together."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import TokenUsage
from kubechain_common.api.v1alpha1.llm import LLMRateLimit
from kubechain_common.messaging.errors import RetryLater
from kubechain_common.messaging.shared_entries import SharedEntry
from kubechain_common.testing.entries import InMemoryEntries
from kubechain_llm_gateway.admission import metering, rate_limiter
from kubechain_llm_gateway.admission.metering import FREE, Meter
from kubechain_llm_gateway.admission.rate_limit import (
    BURST,
    FRESH,
    HORIZON,
    correct,
    decode,
    describe,
    encode,
    reserve,
)
from kubechain_llm_gateway.admission.rate_limiter import RateLimiter
from kubechain_llm_gateway.admission.token_guess import TokenGuess

BuildLLM = Callable[..., LLM]
NOW = 1_000_000.0


def limit_of(requests: int | None = None, tokens: int | None = None) -> LLMRateLimit:
    return LLMRateLimit(requests_per_minute=requests, tokens_per_minute=tokens)


def most_in_a_minute(starts: Sequence[float], costs: Sequence[int] | None = None) -> int:
    """The most that any 60 seconds hold."""
    ordered = sorted(zip(starts, costs or [1] * len(starts), strict=True))
    times = [start for start, _ in ordered]
    sums = [0]
    for _, cost in ordered:
        sums.append(sums[-1] + cost)
    return max(sums[bisect_left(times, start + 60)] - sums[index] for index, start in enumerate(times))


def test_an_idle_llm_answers_a_few_at_once_and_then_keeps_the_rate() -> None:
    state, starts = reserve(FRESH, limit_of(60), [1] * 100, NOW)
    assert [start - NOW for start in starts] == [0, 0, 0, 0, 1, 2]  # BURST, and as far as one looks ahead
    _, more = reserve(state, limit_of(60), [1], NOW)
    assert more == (NOW + 3,), "the first is given a time"
    assert reserve(state, limit_of(60), [1], NOW, at_least_one=False) == (state, ())


def test_a_call_of_more_than_a_minutes_tokens_is_made_and_the_next_waits() -> None:
    state, starts = reserve(FRESH, limit_of(tokens=600), [1200], NOW)
    assert starts == (NOW,)
    _, starts = reserve(state, limit_of(tokens=600), [1], NOW)
    assert starts == (NOW + 120 - BURST,)


def test_what_was_reserved_too_much_is_given_back_and_too_little_is_made_good() -> None:
    limit = limit_of(tokens=600)
    state, _ = reserve(FRESH, limit, [300], NOW)  # half a minute's
    assert reserve(correct(state, limit, -300, NOW), limit, [1], NOW)[1] == (NOW,)
    assert reserve(correct(state, limit, 300, NOW), limit, [1], NOW)[1] == (NOW + 60 - BURST,)


def test_the_stricter_limit_holds() -> None:
    _, starts = reserve(FRESH, limit_of(60, 60), [10, 10], NOW)
    assert starts == (NOW,)
    state, _ = reserve(FRESH, limit_of(60, 60), [10], NOW)
    assert reserve(state, limit_of(60, 60), [10], NOW)[1] == (NOW + 10 - BURST,)


def test_another_limit_holds_at_once() -> None:
    state, _ = reserve(FRESH, limit_of(1), [1] * 3, NOW)
    state, _ = reserve(state, limit_of(1), [1], NOW)
    assert state.requests_due == NOW + 120
    faster, starts = reserve(state, limit_of(60), [1], NOW)
    assert starts == (NOW,)
    assert faster.requests_due == NOW + 3
    assert reserve(state, limit_of(None, 100), [1], NOW)[1] == (NOW,)


@given(
    st.integers(1, 5000),
    st.integers(100, 100_000),
    st.lists(st.tuples(st.floats(0, 20), st.lists(st.integers(1, 50), min_size=1, max_size=30)), max_size=60),
)
def test_no_minute_has_more_than_the_limit_and_its_burst(
    requests: int, tokens: int, arrivals: list[tuple[float, list[int]]]
) -> None:
    limit = limit_of(requests, tokens)
    now, state, starts, costs = NOW, FRESH, [NOW], [0]
    for pause, wanted in arrivals:
        now += pause
        state, given_times = reserve(state, limit, wanted, now)
        assert decode(encode(state)) == state
        assert list(given_times) == sorted(given_times), "in their order"
        assert all(start <= now + HORIZON for start in given_times[1:])
        starts += given_times
        costs += wanted[: len(given_times)]
    assert most_in_a_minute(starts[1:] or [NOW]) <= requests * (1 + BURST / 60) + 1
    assert most_in_a_minute(starts, costs) <= tokens * (1 + BURST / 60) + max(costs)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"requests_due": "x"}', b"null"])
def test_what_is_not_ours_begins_anew(data: bytes) -> None:
    assert decode(data) == FRESH


def test_a_limit_is_told_in_the_words_of_the_spec() -> None:
    assert describe(limit_of(60, 1000)) == "limited to 60 requests and 1000 tokens a minute (spec.rateLimit)"
    assert describe(limit_of(None, 1000)) == "limited to 1000 tokens a minute (spec.rateLimit)"


# --- guesses ---


def test_guesses_get_better() -> None:
    guess = TokenGuess()
    assert guess.guess(4000, None) == 1256
    assert guess.guess(4000, 16) == 1016
    for _ in range(40):
        guess = guess.learn(4000, TokenUsage(input_tokens=500, output_tokens=20))
    assert guess.guess(4000, None) == pytest.approx(520, rel=0.01)


def test_a_provider_that_does_not_count_teaches_nothing() -> None:
    assert TokenGuess().learn(4000, TokenUsage()) == TokenGuess()


# --- replicas ---


class Clock:
    """Virtual time: sleeping ends when everybody sleeps, at the earliest end."""

    def __init__(self) -> None:
        self.time = NOW
        self._sleeping: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleeping.append((self.time + seconds, future))
        await future

    async def run(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        while not all(task.done() for task in tasks):
            for _ in range(20):
                await asyncio.sleep(0)
            self._sleeping = [(end, future) for end, future in self._sleeping if not future.done()]
            if self._sleeping:
                self.time = max(self.time, min(end for end, _ in self._sleeping))
                for end, future in self._sleeping:
                    if end <= self.time:
                        future.set_result(None)


class Slow(InMemoryEntries):
    """Answers after other replicas have had their turn."""

    async def read(self, key: str) -> SharedEntry:
        await asyncio.sleep(0)
        return await super().read(key)

    async def write(self, key: str, data: bytes, revision: int) -> int | None:
        await asyncio.sleep(0)
        return await super().write(key, data, revision)


async def run_replicas(llm: LLM, replicas: Sequence[int], entries: InMemoryEntries, clock: Clock) -> list[list[float]]:
    """When the calls of each replica start, which all come at once."""
    limit = llm.spec.rate_limit
    assert limit is not None
    starts: list[list[float]] = [[] for _ in replicas]

    async def call(limiter: RateLimiter, started: list[float]) -> None:
        assert limit is not None
        started.append(await limiter.reserve(llm.uid, lambda: limit, 1, clock.sleep))

    async with asyncio.TaskGroup() as group:
        tasks = []
        for index, count in enumerate(replicas):
            limiter = RateLimiter(entries, clock.now)
            tasks += [group.create_task(call(limiter, starts[index])) for _ in range(count)]
        await clock.run(tasks)
    return starts


@pytest.fixture(autouse=True)
def no_stepping_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real time has no part in virtual time."""
    monkeypatch.setattr(rate_limiter, "_LONGEST_STEP_ASIDE", 0.0)


async def test_replicas_keep_the_limit_together_with_few_writes(build_llm: BuildLLM) -> None:
    entries, clock = Slow(), Clock()
    starts = await run_replicas(build_llm(rateLimit={"requestsPerMinute": 1200}), [600, 600, 600], entries, clock)
    together = sorted(start for started in starts for start in started)
    assert len(together) == 1800
    assert most_in_a_minute(together) <= 1200 * 1.1
    assert together[-1] - NOW <= 90, "and nothing of it is wasted"
    assert entries.writes <= 2 * 3 * 90, f"{entries.writes} writes: more than two a second and replica"


async def test_a_replica_with_one_call_is_not_starved_by_one_with_many(build_llm: BuildLLM) -> None:
    starts = await run_replicas(build_llm(rateLimit={"requestsPerMinute": 60}), [200, 1], Slow(), Clock())
    assert starts[1][0] - NOW <= 3 * HORIZON


async def test_a_slow_limit_is_kept_too(build_llm: BuildLLM) -> None:
    starts = await run_replicas(build_llm(rateLimit={"requestsPerMinute": 2}), [3, 3], Slow(), Clock())
    together = sorted(start for started in starts for start in started)
    assert most_in_a_minute(together) <= 3
    assert together[-1] - NOW == pytest.approx(150 - BURST, abs=1)


async def test_a_call_that_is_given_up_leaves_nothing_behind(build_llm: BuildLLM) -> None:
    llm, clock = build_llm(rateLimit={"requestsPerMinute": 1}), Clock()
    limiter = RateLimiter(InMemoryEntries(), clock.now)
    limit = llm.spec.rate_limit
    assert limit is not None

    async def give_up(seconds: float) -> None:
        raise RetryLater(0)

    async def reserve_one(sleep: Callable[[float], Awaitable[None]]) -> float:
        assert limit is not None
        return await limiter.reserve(llm.uid, lambda: limit, 1, sleep)

    assert await reserve_one(clock.sleep) == NOW
    assert await reserve_one(clock.sleep) == NOW + 60 - BURST
    outcomes = [await _outcome(reserve_one(give_up)) for _ in range(3)]
    assert [type(outcome) for outcome in outcomes] == [RetryLater] * 3, "as long as one has its time ahead of it"
    clock.time += 60
    assert await reserve_one(clock.sleep) == NOW + 120 - BURST


async def test_a_call_that_is_given_up_when_another_has_reserved_for_it_gives_its_tokens_back() -> None:
    clock, limit = Clock(), limit_of(tokens=600)
    limiter = RateLimiter(InMemoryEntries(), clock.now)

    async def reserve_one(sleep: Callable[[float], Awaitable[None]]) -> float:
        return await limiter.reserve("uid", lambda: limit, 600, sleep)

    async def give_up(seconds: float) -> None:
        raise RetryLater(0)

    async def give_up_late(seconds: float) -> None:
        clock.time += 60
        await _outcome(reserve_one(give_up))
        raise RetryLater(0)

    assert [await reserve_one(clock.sleep) for _ in range(2)] == [NOW, NOW + 60 - BURST]
    assert isinstance(await _outcome(reserve_one(give_up_late)), RetryLater)
    clock.time += 60
    assert await reserve_one(clock.sleep) == NOW + 120


async def test_a_loss_of_the_entry_begins_anew_and_hangs_nobody(build_llm: BuildLLM) -> None:
    llm, clock, entries = build_llm(rateLimit={"requestsPerMinute": 1}), Clock(), InMemoryEntries()
    limit = llm.spec.rate_limit
    assert limit is not None
    limiter = RateLimiter(entries, clock.now)
    assert await limiter.reserve(llm.uid, lambda: limit, 1, clock.sleep) == NOW
    entries.lose_storage()
    assert await limiter.reserve(llm.uid, lambda: limit, 1, clock.sleep) == NOW


@pytest.mark.parametrize("new", [limit_of(600), None])
async def test_a_limit_that_is_lifted_lets_those_go_that_wait(new: LLMRateLimit | None) -> None:
    clock, limit = Clock(), [limit_of(1)]
    limiter = RateLimiter(InMemoryEntries(), clock.now)

    async def sleep(seconds: float) -> None:
        clock.time += seconds
        limit[:] = [] if new is None else [new]

    for expected in (NOW, NOW + 60 - BURST):
        assert await limiter.reserve("uid", lambda: limit_of(1), 1, sleep) == expected
    assert await limiter.reserve("uid", lambda: limit[0] if limit else None, 1, sleep) <= NOW + 15


async def test_without_the_bus_calls_wait_for_it(build_llm: BuildLLM) -> None:
    llm, clock, entries = build_llm(rateLimit={"requestsPerMinute": 60}), Clock(), InMemoryEntries()
    limit = llm.spec.rate_limit
    assert limit is not None
    limiter = RateLimiter(entries, clock.now)
    entries.away = True
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        entries.away = len(slept) < 3

    assert await limiter.reserve(llm.uid, lambda: limit, 1, sleep) == NOW
    assert len(slept) == 3


async def test_big_corrections_are_written_at_once_and_small_ones_with_the_next(build_llm: BuildLLM) -> None:
    llm, clock, entries = build_llm(rateLimit={"tokensPerMinute": 6000}), Clock(), InMemoryEntries()
    limit = llm.spec.rate_limit
    assert limit is not None
    limiter = RateLimiter(entries, clock.now)
    await limiter.correct(llm.uid, limit, 50)
    assert entries.writes == 0
    await limiter.correct(llm.uid, limit, 100)
    assert entries.writes == 1
    other = RateLimiter(entries, clock.now)
    await other.reserve(llm.uid, lambda: limit, 1, clock.sleep)
    state = decode(entries.entries[f"rate.{llm.uid}"].data)
    assert state.tokens_due == pytest.approx(NOW + 1.51)
    entries.away = True
    await limiter.correct(llm.uid, limit, 600)  # kept until the bus is back
    entries.away = False
    assert await limiter.reserve(llm.uid, lambda: limit, 1, clock.sleep) == pytest.approx(NOW + 7.51 - BURST, abs=0.02)


# --- the meter ---


@pytest.fixture
def stopping() -> asyncio.Event:
    return asyncio.Event()


async def refuse_to_tell(reason: str) -> None:
    raise AssertionError(f"nothing waits, but {reason}")


async def test_an_llm_without_a_limit_pays_nothing(build_llm: BuildLLM, stopping: asyncio.Event) -> None:
    entries = InMemoryEntries()
    llm = build_llm()
    meter = Meter(RateLimiter(entries, Clock().now), lambda uid: llm, Clock().now, stopping)
    assert await meter.wait(llm, lambda: 1 // 0, refuse_to_tell) == FREE
    await meter.book(llm, FREE, lambda: 1 // 0, TokenUsage(input_tokens=1))
    assert (entries.reads, entries.writes) == (0, 0)


async def test_a_long_wait_is_told_once_and_ends_with_the_process(build_llm: BuildLLM, stopping: asyncio.Event) -> None:
    llm, told = build_llm(rateLimit={"requestsPerMinute": 1}), []
    meter = Meter(RateLimiter(InMemoryEntries(), Clock().now), lambda uid: llm, Clock().now, stopping)

    async def tell(reason: str) -> None:
        told.append(reason)
        stopping.set()

    assert (await meter.wait(llm, lambda: 0, tell)).waited == 0
    with pytest.raises(RetryLater):
        await meter.wait(llm, lambda: 0, tell)
    assert told == ["limited to 1 requests a minute (spec.rateLimit)"]
    assert metering.PATIENCE < 57


async def test_what_a_call_costs_is_guessed_and_booked(build_llm: BuildLLM, stopping: asyncio.Event) -> None:
    entries, clock = InMemoryEntries(), Clock()
    llm = build_llm(rateLimit={"tokensPerMinute": 6000}, parameters={"model": "m", "maxTokens": 100})
    meter = Meter(RateLimiter(entries, clock.now), lambda uid: llm, clock.now, stopping)
    reservation = await meter.wait(llm, lambda: 2000, refuse_to_tell)
    assert reservation.tokens == 600
    await meter.book(llm, reservation, lambda: 2000, TokenUsage(input_tokens=200, output_tokens=40))
    assert decode(entries.entries[f"rate.{llm.uid}"].data).tokens_due == pytest.approx(NOW + 2.4)
    assert (await meter.wait(llm, lambda: 2000, refuse_to_tell)).tokens < 600, "the next guess is a better one"


async def test_a_call_that_is_never_made_gives_its_tokens_back(build_llm: BuildLLM, stopping: asyncio.Event) -> None:
    """It has its start, which others wait behind, and is given up before it comes."""
    entries, clock = InMemoryEntries(), Clock()
    llm = build_llm(rateLimit={"tokensPerMinute": 6000}, parameters={"model": "m", "maxTokens": 100})
    meter = Meter(RateLimiter(entries, clock.now), lambda uid: llm, clock.now, stopping)
    await meter.wait(llm, lambda: 20_000, refuse_to_tell)
    due = decode(entries.entries[f"rate.{llm.uid}"].data).tokens_due

    async def tell(reason: str) -> None:
        assert decode(entries.entries[f"rate.{llm.uid}"].data).tokens_due > due + 30
        stopping.set()

    with pytest.raises(RetryLater):
        await meter.wait(llm, lambda: 20_000, tell)
    assert decode(entries.entries[f"rate.{llm.uid}"].data).tokens_due == pytest.approx(due)


async def _outcome(work: Awaitable[object]) -> object:
    await asyncio.sleep(random.random() / 1000)
    try:
        return await work
    except RetryLater as error:
        return error
