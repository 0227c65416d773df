"""Places of a process: never more than there are, first come first served, and no offer is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubechain_common.messaging import room as module
from kubechain_common.messaging.room import Room, Seat


class Woken:
    """A seat that counts how often it was its turn."""

    def __init__(self, room: Room) -> None:
        self.times = 0
        self.seat: Seat = room.seat(self._count)

    def _count(self) -> None:
        self.times += 1


async def test_no_more_places_than_there_are() -> None:
    room = Room(2)
    seat = Woken(room).seat
    assert [seat.ask(), seat.take(), seat.take(), seat.take()] == [2, True, True, False]
    assert room.taken == 2
    seat.give_back()
    assert seat.ask() == 1


async def test_a_free_place_goes_to_those_in_line_one_after_another() -> None:
    room = Room(1)
    busy, first, second = Woken(room), Woken(room), Woken(room)
    assert busy.seat.take()
    assert (first.seat.ask(), second.seat.ask()) == (0, 0)
    busy.seat.give_back()
    assert (first.times, second.times) == (1, 0)
    assert (first.seat.ask(), second.seat.ask()) == (1, 0), "the place is offered to the first"
    assert first.seat.take()
    first.seat.give_back()
    assert second.times == 1


async def test_an_offer_that_comes_to_nothing_passes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OFFER_SECONDS", 0.01)
    room = Room(1)
    busy, first, second = Woken(room), Woken(room), Woken(room)
    busy.seat.take()
    first.seat.ask()
    second.seat.ask()
    busy.seat.give_back()
    async with asyncio.timeout(5):
        while not second.times:  # noqa: ASYNC110 - a timer of the loop decides
            await asyncio.sleep(0.005)
    assert second.seat.ask() == 1


async def test_who_leaves_passes_its_offer_on() -> None:
    room = Room(1)
    busy, first, second = Woken(room), Woken(room), Woken(room)
    busy.seat.take()
    first.seat.ask()
    second.seat.ask()
    busy.seat.give_back()
    first.seat.leave()
    assert second.times == 1


async def test_who_was_offered_a_place_and_lost_it_is_the_next() -> None:
    room = Room(1)
    busy, first, second = Woken(room), Woken(room), Woken(room)
    busy.seat.take()
    first.seat.ask()
    second.seat.ask()
    busy.seat.give_back()
    assert busy.seat.take(), "what has arrived takes what is free, whoever it was offered to"
    assert not first.seat.take()
    busy.seat.give_back()
    assert (first.times, second.times) == (2, 0)


async def test_holders_never_exceed_the_places_and_all_get_their_turn() -> None:
    room = Room(3)
    highest = done = 0

    async def work() -> None:
        nonlocal highest, done
        async with room.hold():
            highest = max(highest, room.taken)
            await asyncio.sleep(0)
        done += 1

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(work())
    assert (highest, done, room.taken) == (3, 50, 0)


async def test_a_holder_that_is_cancelled_in_line_leaves_it() -> None:
    room = Room(1)
    entered: list[Any] = []

    async def hold(name: str) -> None:
        async with room.hold():
            entered.append(name)

    async with asyncio.TaskGroup() as group:
        async with room.hold():
            waiting = group.create_task(hold("cancelled"))
            other = group.create_task(hold("other"))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
        await other
    assert entered == ["other"]
    assert room.taken == 0
