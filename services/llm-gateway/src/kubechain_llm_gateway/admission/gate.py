"""The order in which the calls of one LLM go out on this replica: first come, first served.

No call goes while the provider must not be called. When it may be called again, the calls that waited do not go all at
once: one goes first, each success lets one more go beside those under way, and each second without trouble lets twice
as many go (an answer may take long, a refusal does not). So a provider that has just come back, or has just let us in
again, meets no crowd. Trouble begins that anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from kubechain_common.runtime.pulse import Pulse
from kubechain_llm_gateway.admission.circuit import Block

OPEN_WIDE = 64
"""Calls at a time from which on nobody is held back any more."""
GROWTH_SECONDS = 1.0


class Waiter:
    """A call that may not go yet; ``going`` is set when it may."""

    def __init__(self) -> None:
        self.going = asyncio.Event()


class Gate:
    """The gate of one LLM on this replica. ``find_block`` says what stands in the way now; ``now`` gives the time."""

    def __init__(self, find_block: Callable[[], Block | None], now: Callable[[], float]) -> None:
        self._find_block = find_block
        self._now = now
        self._waiting: deque[Waiter] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._growth: asyncio.TimerHandle | None = None
        self._width: int | None = None
        self._changes = Pulse()
        self.under_way = 0

    @property
    def changed(self) -> asyncio.Event:
        """Set when what stands in the way may have changed."""
        return self._changes.next

    @property
    def is_empty(self) -> bool:
        return not self._waiting and not self.under_way

    def try_enter(self) -> bool:
        """Lets a call go at once if none waits and nothing stands in the way; whether it went."""
        if self._waiting or not self._is_free():
            return False
        self.under_way += 1
        return True

    def queue(self, *, first: bool = False) -> Waiter:
        """Puts a call in line, before all others if it is one that has had its turn already; ``give_up``, or ``leave``
        once it went, ends its part.
        """
        waiter = Waiter()
        if first:
            self._waiting.appendleft(waiter)
        else:
            self._waiting.append(waiter)
        self.look()
        return waiter

    def give_up(self, waiter: Waiter) -> None:
        """Ends the part of a call that is not made."""
        if waiter.going.is_set():
            self.leave()
        else:
            self._waiting.remove(waiter)

    def leave(self) -> None:
        """Ends the part of a call that went."""
        self.under_way -= 1
        self._let_in()

    def narrow(self, width: int = 1) -> None:
        """Lets at most so many calls go at a time from now on."""
        self._width = min(max(1, width), self._width or OPEN_WIDE)
        self._stop_growing()

    def widen(self) -> None:
        """Lets one more call go at a time, because one succeeded."""
        if self._width is not None:
            self._set_width(self._width + 1)

    def look(self) -> None:
        """Lets go what may, because what stands in the way may have changed."""
        self._changes.beat()
        self._let_in()

    def _is_free(self) -> bool:
        block = self._find_block()
        if block is not None:
            self.narrow()
            self._look_again(block)
            return False
        return self._width is None or self.under_way < self._width

    def _let_in(self) -> None:
        while self._waiting and self._is_free():
            self.under_way += 1
            self._waiting.popleft().going.set()
        if self._waiting and self._growth is None and self._find_block() is None:
            self._growth = asyncio.get_running_loop().call_later(GROWTH_SECONDS, self._grow)

    def _grow(self) -> None:
        self._growth = None
        if self._width is not None:
            self._set_width(self._width * 2)

    def _set_width(self, width: int) -> None:
        self._width = width if width < OPEN_WIDE else None
        self._let_in()

    def _stop_growing(self) -> None:
        if self._growth is not None:
            self._growth.cancel()
            self._growth = None

    def _look_again(self, block: Block) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if block.until is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, block.until - self._now()), self._handle_time)

    def _handle_time(self) -> None:
        self._timer = None
        self.look()
