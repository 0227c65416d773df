"""Burst: when memory is given back, and that it is."""

from __future__ import annotations

import asyncio
import ctypes
import sys

import psutil
import pytest

from kubechain_common.kube import heap
from kubechain_common.kube.heap import BURST, Burst, give_back_memory
from kubechain_common.testing.eventually import eventually


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each time that memory was given back; a burst is over at once."""
    times: list[str] = []
    monkeypatch.setattr(heap, "give_back_memory", lambda: times.append("given back"))
    monkeypatch.setattr(heap, "_QUIET", 0.0)
    return times


def work_through(burst: Burst, pieces: int) -> None:
    for _ in range(pieces):
        with burst.work():
            pass


async def test_memory_is_given_back_once_a_burst_has_ended(given_back: list[str]) -> None:
    burst = Burst()
    work_through(burst, 3 * BURST)
    assert given_back == [], "it would keep the work waiting"
    await asyncio.to_thread(eventually, lambda: given_back, 5)
    work_through(burst, BURST - 1)
    await asyncio.sleep(0.01)
    assert given_back == ["given back"], "a few pieces are no burst"
    work_through(burst, 1)
    await asyncio.to_thread(eventually, lambda: len(given_back) == 2, 5)


async def test_nothing_is_given_back_while_work_is_under_way(given_back: list[str]) -> None:
    burst = Burst()
    work_through(burst, BURST)
    with burst.work():
        await asyncio.sleep(0.01)
        assert given_back == []
    await asyncio.to_thread(eventually, lambda: given_back, 5)


async def test_a_piece_of_work_that_fails_has_ended_too(given_back: list[str]) -> None:
    burst = Burst()
    work_through(burst, BURST - 1)
    with pytest.raises(ValueError, match="failed"), burst.work():
        raise ValueError("failed")
    await asyncio.to_thread(eventually, lambda: given_back, 5)


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
