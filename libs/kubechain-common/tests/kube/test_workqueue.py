from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from kubechain_common.kube.sleep_watch import SleepWatch
from kubechain_common.kube.workqueue import LOOK_EVERY, MAX_DELAY, QueueShutDown, Workqueue

RunVirtual = Callable[[Coroutine[Any, Any, Any]], Any]


def now() -> float:
    return asyncio.get_running_loop().time()


def check_nothing_waits(queue: Workqueue[str], key: str) -> None:
    """And no worker has the key: it would be handed out at once."""
    assert len(queue) == 0
    queue.add(key)
    assert len(queue) == 1


def test_a_key_waits_only_once(run_virtual: RunVirtual) -> None:
    async def scenario() -> None:
        queue: Workqueue[str] = Workqueue()
        for key in ("a", "b", "a"):
            queue.add(key)
        assert len(queue) == 2
        assert [await queue.get(), await queue.get()] == ["a", "b"]

    run_virtual(scenario())


def test_a_key_is_never_with_two_workers(run_virtual: RunVirtual) -> None:
    async def scenario() -> None:
        queue: Workqueue[str] = Workqueue()
        queue.add("a")
        assert await queue.get() == "a"
        queue.add("a")
        queue.add("a")
        assert len(queue) == 0
        queue.done("a")
        assert len(queue) == 1
        assert await queue.get() == "a"
        queue.done("a")
        check_nothing_waits(queue, "a")

    run_virtual(scenario())


def test_get_waits_for_the_delay(run_virtual: RunVirtual) -> None:
    async def scenario() -> list[tuple[str, float]]:
        queue: Workqueue[str] = Workqueue()
        queue.add_after("late", 30)
        queue.add_after("soon", 10)
        queue.add_after("now", 0)
        return [(await queue.get(), now()) for _ in range(3)]

    assert run_virtual(scenario()) == [("now", 0), ("soon", 10), ("late", 30)]


def test_of_several_delays_the_shortest_counts(run_virtual: RunVirtual) -> None:
    async def scenario() -> None:
        queue: Workqueue[str] = Workqueue()
        queue.add_after("a", 10)
        queue.add_after("a", 5)
        queue.add_after("a", 20)
        assert (await queue.get(), now()) == ("a", 5)
        queue.done("a")
        await asyncio.sleep(60)
        check_nothing_waits(queue, "a")

    run_virtual(scenario())


def test_delays_that_uvloop_takes_for_none() -> None:
    """In production: its handle of a timer that is nearly due is another one."""

    async def scenario() -> None:
        queue: Workqueue[str] = Workqueue()
        queue.add_after("a", 0.0003)
        queue.add_after("b", 0.0001)
        queue.add_after("c", 0.0003)
        async with asyncio.timeout(5):
            assert {await queue.get() for _ in range(3)} == {"a", "b", "c"}

    uvloop.run(scenario())


class WallClock:
    """How far it is ahead of the loop's clock."""

    def __init__(self) -> None:
        self.ahead = 1_000_000.0

    def read(self) -> float:
        return self.ahead


def test_the_time_that_the_machine_sleeps_counts(run_virtual: RunVirtual) -> None:
    async def scenario() -> None:
        clock = WallClock()
        queue: Workqueue[str] = Workqueue(SleepWatch(clock.read))
        queue.add_after("deadline", 3600)
        queue.add_after("far", 10_000)
        await asyncio.sleep(60)
        assert len(queue) == 0
        clock.ahead += 8 * 3600  # a night; the loop's clock stood still
        async with asyncio.timeout(60):
            assert [await queue.get(), await queue.get()] == ["deadline", "far"]

    run_virtual(scenario())


def test_a_delay_that_begins_after_the_sleep_is_not_shortened(run_virtual: RunVirtual) -> None:
    async def scenario() -> None:
        clock = WallClock()
        queue: Workqueue[str] = Workqueue(SleepWatch(clock.read))
        queue.add_after("deadline", 3600)
        clock.ahead += 8 * 3600
        queue.add_after("new", 100)
        assert (await queue.get(), now()) == ("deadline", 0)
        assert (await queue.get(), now()) == ("new", 100)

    run_virtual(scenario())


def test_a_wall_clock_that_is_set_back_or_kept_in_step_changes_nothing(run_virtual: RunVirtual) -> None:
    async def scenario() -> None:
        clock = WallClock()
        queue: Workqueue[str] = Workqueue(SleepWatch(clock.read))
        queue.add_after("a", 100)
        for change in (-3600.0, 0.4):
            clock.ahead += change
            await asyncio.sleep(40)
        assert (await queue.get(), now()) == ("a", 100)

    run_virtual(scenario())


def test_many_keys_that_wait_for_long_cost_one_timer(run_virtual: RunVirtual) -> None:
    looks = 0

    def read_ahead() -> float:
        nonlocal looks
        looks += 1
        return 0.0

    async def scenario() -> None:
        nonlocal looks
        queue: Workqueue[int] = Workqueue(SleepWatch(read_ahead))
        for key in range(1000):
            queue.add_after(key, 86_400 + key)
        looks = 0
        await asyncio.sleep(3600)
        assert len(queue) == 0
        assert looks == pytest.approx(3600 / LOOK_EVERY, abs=1)

    run_virtual(scenario())


def test_back_off_grows_per_key_until_it_is_forgotten(run_virtual: RunVirtual) -> None:
    async def delay(queue: Workqueue[str], key: str, at_least: float = 0.0) -> float:
        started = now()
        queue.add_rate_limited(key, at_least=at_least)
        assert await queue.get() == key
        queue.done(key)
        return now() - started

    async def scenario() -> None:
        queue: Workqueue[str] = Workqueue()
        delays = [await delay(queue, "a") for _ in range(20)]
        for failures, waited in enumerate(delays):
            longest = min(0.005 * 2**failures, MAX_DELAY)
            assert longest / 2 <= waited <= longest
        assert await delay(queue, "b") <= 0.005
        assert await delay(queue, "b", at_least=7.0) == pytest.approx(7.0)
        queue.forget("a")
        assert await delay(queue, "a") <= 0.005

    run_virtual(scenario())


def test_shut_down_ends_waiting_workers_and_drops_what_waits(run_virtual: RunVirtual) -> None:
    async def work(queue: Workqueue[str], got: list[str]) -> None:
        try:
            while True:
                got.append(await queue.get())
        except QueueShutDown:
            got.append("end")

    async def scenario() -> None:
        queue: Workqueue[str] = Workqueue()
        got: list[str] = []
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(work(queue, got))
            await asyncio.sleep(1)
            queue.add_after("never", 5)
            queue.shut_down()
            queue.add("never")
        assert got == ["end"] * 3

    run_virtual(scenario())


def test_a_key_is_not_lost_with_the_worker_it_woke(run_virtual: RunVirtual) -> None:
    async def scenario() -> None:
        queue: Workqueue[str] = Workqueue()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(queue.get())
            second = group.create_task(queue.get())
            await asyncio.sleep(1)
            queue.add("a")
            first.cancel()
            assert await second == "a"

    run_virtual(scenario())
