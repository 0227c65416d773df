"""How much this process takes on at a time, over all of its Consumers.

A place belongs to one message while its handler runs. Nothing is asked for without a free place, except that each
Consumer keeps a request open: which one has work, only the server knows. What then arrives while all places are taken
goes back at once, for another replica to take, and its Consumer stands in line. A place that gets free is offered to
whoever is first in line; an offer that comes to nothing (somebody else was faster) passes on after a moment.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

OFFER_SECONDS = 0.05
"""A message that is there comes within a millisecond or two."""


class Room:
    """Bounds how many messages are handled at a time: ``places``, which Seats share."""

    def __init__(self, places: int) -> None:
        self.places = places
        self._taken = 0
        self._line: OrderedDict[Seat, None] = OrderedDict()
        self._offers: dict[Seat, asyncio.TimerHandle] = {}

    @property
    def taken(self) -> int:
        """Places in use."""
        return self._taken

    def seat(self, wake: Callable[[], None]) -> Seat:
        """A seat for one consumer of messages; ``wake`` is called when it is its turn to ask."""
        return Seat(self, wake)

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Holds a place during the context, after waiting in line for one."""
        turn = asyncio.Event()
        seat = self.seat(turn.set)
        try:
            while not (seat.ask() and seat.take()):
                await turn.wait()
                turn.clear()
        except BaseException:
            seat.leave()
            raise
        try:
            yield
        finally:
            seat.give_back()
            seat.leave()

    def _spare(self, seat: Seat) -> int:
        """Places that are neither taken nor offered to somebody else."""
        return self.places - self._taken - sum(other is not seat for other in self._offers)

    def _offer(self) -> None:
        """Offer what is free to those in line."""
        while self._line and self.places - self._taken - len(self._offers) > 0:
            seat, _ = self._line.popitem(last=False)
            self._offers[seat] = asyncio.get_running_loop().call_later(OFFER_SECONDS, self._withdraw, seat)
            seat.wake()

    def _withdraw(self, seat: Seat) -> None:
        self._end_offer(seat)
        self._offer()

    def _end_offer(self, seat: Seat) -> bool:
        timer = self._offers.pop(seat, None)
        if timer is not None:
            timer.cancel()
        return timer is not None


class Seat:
    """The part that one consumer of messages has in a Room."""

    def __init__(self, room: Room, wake: Callable[[], None]) -> None:
        self._room = room
        self.wake = wake

    def ask(self) -> int:
        """The number of messages for which there is room now. At 0 the seat stands in line from now on, and is woken in
        its turn.
        """
        spare = self._room._spare(self)
        if spare > 0:
            self._room._line.pop(self, None)
            return spare
        self._room._line.setdefault(self)
        return 0

    def take(self) -> bool:
        """Takes a place for a message that has arrived. False when there is none: the seat then stands at the head of
        the line if it had been offered one, else at its end.
        """
        room = self._room
        was_offered = room._end_offer(self)
        if room._taken >= room.places:
            room._line.setdefault(self)
            if was_offered:
                room._line.move_to_end(self, last=False)
            return False
        room._taken += 1
        return True

    def give_back(self) -> None:
        """Frees a place that was taken."""
        self._room._taken -= 1
        self._room._offer()

    def leave(self) -> None:
        """Leaves the line: the seat asks for nothing more."""
        self._room._line.pop(self, None)
        if self._room._end_offer(self):
            self._room._offer()
