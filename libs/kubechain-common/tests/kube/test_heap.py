"""Burst: when memory is given back, and that it is."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from contextlib import ExitStack

import psutil
import pytest

from kubechain_common.kube import heap
from kubechain_common.kube.heap import CROWD, Burst, give_back_memory


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each time that memory was given back, which is as soon as a burst is over."""
    times: list[str] = []
    monkeypatch.setattr(heap, "give_back_memory", lambda: times.append("given back"))
    monkeypatch.setattr(heap, "_LATER", 0.0)
    return times


def begin(burst: Burst, pieces: int) -> list[ExitStack]:
    """Pieces of work that are under way until they are closed."""
    begun = []
    for _ in range(pieces):
        stack = ExitStack()
        stack.enter_context(burst.work())
        begun.append(stack)
    return begun


def end(pieces: list[ExitStack]) -> None:
    for piece in pieces:
        piece.close()


async def let_timers_run() -> None:
    await asyncio.sleep(0.01)


async def test_memory_is_given_back_once_a_burst_has_ended(given_back: list[str]) -> None:
    burst = Burst()
    end(begin(burst, 2 * CROWD))
    assert given_back == [], "it would keep the work waiting"
    await let_timers_run()
    end(begin(burst, CROWD - 1))
    await let_timers_run()
    assert given_back == ["given back"], "a few pieces are no burst"
    end(begin(burst, CROWD))
    await let_timers_run()
    assert given_back == ["given back"] * 2


async def test_nothing_is_given_back_while_many_are_under_way(given_back: list[str]) -> None:
    burst = Burst()
    pieces = begin(burst, 2 * CROWD)
    end(pieces[:CROWD])
    await let_timers_run()
    assert given_back == []
    end(pieces[CROWD:])
    begun = begin(burst, CROWD)
    await let_timers_run()
    assert given_back == [], "the next burst has begun before this one's memory was given back"
    end(begun)
    await let_timers_run()
    assert given_back == ["given back"]


async def test_a_piece_that_goes_on_does_not_keep_the_memory_of_the_others(given_back: list[str]) -> None:
    burst = Burst()
    with burst.work():
        end(begin(burst, CROWD))
        await let_timers_run()
        assert given_back == ["given back"]


async def test_a_piece_of_work_that_fails_has_ended_too(given_back: list[str]) -> None:
    burst = Burst()
    pieces = begin(burst, CROWD)
    for piece in pieces:
        piece.__exit__(ValueError, ValueError("failed"), None)
    await let_timers_run()
    assert given_back == ["given back"]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
@pytest.mark.skipif(sys.platform != "linux", reason="RSS is read from Linux")
def test_what_is_free_between_what_is_kept_goes_back_to_the_system() -> None:
    process = psutil.Process()
    pieces, kept = [], []
    for _ in range(2000):
        pieces.append(bytes(40_000))
        kept.append(bytes(1000))
    full = process.memory_info().rss
    pieces.clear()
    give_back_memory()
    assert full - process.memory_info().rss > 40_000_000
    assert len(kept) == 2000
