"""How namespaces share one replica."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_llm_gateway.admission.fair_share import FairShare


class Calls:
    """Calls that go on until they are ended, by namespace."""

    def __init__(self, places: int) -> None:
        self.share = FairShare(places)
        self.under_way: Counter[str] = Counter()
        self.tasks: list[tuple[str, asyncio.Task[None], asyncio.Event]] = []
        self.going: set[asyncio.Task[None]] = set()

    async def begin(self, group: asyncio.TaskGroup, namespace: str, count: int = 1) -> None:
        for _ in range(count):
            end = asyncio.Event()
            self.tasks.append((namespace, group.create_task(self._call(namespace, end)), end))
        await settle()

    async def end(self, namespace: str) -> None:
        """One that is under way."""
        index = next(i for i, (owner, task, end) in enumerate(self.tasks) if owner == namespace and task in self.going)
        self.tasks.pop(index)[2].set()
        await settle()

    async def end_all(self) -> None:
        for _, _, end in self.tasks:
            end.set()
        await settle()

    async def _call(self, namespace: str, end: asyncio.Event) -> None:
        async with self.share.hold(namespace):
            task = asyncio.current_task()
            assert task is not None
            self.going.add(task)
            self.under_way[namespace] += 1
            try:
                await end.wait()
            finally:
                self.under_way[namespace] -= 1
                self.going.discard(task)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_that_is_alone_gets_most_and_another_still_goes_at_once() -> None:
    calls = Calls(100)
    async with asyncio.TaskGroup() as group:
        await calls.begin(group, "big", 500)
        assert calls.under_way["big"] == 75
        await calls.begin(group, "small")
        assert calls.under_way["small"] == 1
        await calls.end_all()
    assert not calls.share._held


async def test_two_that_want_all_come_to_have_as_much_as_each_other() -> None:
    calls = Calls(100)
    async with asyncio.TaskGroup() as group:
        await calls.begin(group, "first", 500)
        await calls.begin(group, "second", 500)
        for _ in range(60):
            await calls.end("first")
        assert abs(calls.under_way["first"] - calls.under_way["second"]) <= 1
        assert calls.under_way.total() >= 80
        await calls.begin(group, "third")
        assert calls.under_way["third"] == 1
        await calls.end_all()


async def test_a_call_that_is_given_up_leaves_its_place_and_its_turn() -> None:
    calls = Calls(4)
    async with asyncio.TaskGroup() as group:
        await calls.begin(group, "a", 6)
        assert calls.under_way["a"] == 3
        for _, task, _ in calls.tasks[:4]:  # three under way and the first that waits
            task.cancel()
        await settle()
        assert calls.under_way["a"] == 2
        await calls.end_all()
    assert calls.share._free == 4
    assert not calls.share._waiting


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["begin", "end", "cancel"])), max_size=80),
)
def test_places_are_neither_lost_nor_invented(places: int, steps: Sequence[tuple[str, str]]) -> None:
    async def run() -> None:
        calls = Calls(places)
        async with asyncio.TaskGroup() as group:
            for namespace, step in steps:
                mine = [task for owner, task, _ in calls.tasks if owner == namespace and not task.done()]
                if step == "begin":
                    await calls.begin(group, namespace)
                elif step == "end" and calls.under_way[namespace]:
                    await calls.end(namespace)
                elif step == "cancel" and mine:
                    mine[len(mine) // 2].cancel()
                    await settle()
                assert calls.under_way.total() == places - calls.share._free <= places
                if calls.under_way.total() == 0:
                    assert not calls.share._waiting, "nobody waits for nothing"
            await calls.end_all()
        assert calls.share._free == places

    asyncio.run(run())


@pytest.mark.parametrize("places", [1, 2, 3])
async def test_few_places_are_enough_for_everybody_in_turn(places: int) -> None:
    calls = Calls(places)
    async with asyncio.TaskGroup() as group:
        for namespace in "abcdef":
            await calls.begin(group, namespace, 3)
        await calls.end_all()
        await settle()
