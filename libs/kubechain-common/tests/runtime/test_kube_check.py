"""The API server's part of /readyz: what counts as an answer, and how often it is asked for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import UnavailableError
from kubechain_common.runtime.kube_check import EVERY, KubeCheck


class Kube:
    """A client whose last answer was as long ago as the test says."""

    def __init__(self, *, silent_for: float = float("inf"), reachable: bool = True, takes: float = 0.0) -> None:
        self.silent_for = silent_for
        self.reachable = reachable
        self.takes = takes
        self.asked = 0

    def seconds_since_answer(self) -> float:
        return self.silent_for

    async def request(self, method: str, path: str) -> dict[str, Any]:
        assert (method, path) == ("GET", "/version")
        self.asked += 1
        await asyncio.sleep(self.takes)
        if not self.reachable:
            raise UnavailableError("it is away")
        return {}


def check_of(kube: Kube) -> KubeCheck:
    return KubeCheck(cast("KubeClient", kube))


async def test_an_answer_just_now_is_enough() -> None:
    kube = Kube(silent_for=EVERY - 0.1)
    assert await check_of(kube)()
    assert kube.asked == 0


async def test_after_a_while_without_an_answer_it_is_asked() -> None:
    kube = Kube(silent_for=EVERY)
    assert await check_of(kube)()
    assert kube.asked == 1


async def test_an_api_server_that_is_away_is_not_asked_by_each_probe() -> None:
    kube = Kube(reachable=False)
    check = check_of(kube)
    assert [await check() for _ in range(3)] == [False, False, False]
    assert kube.asked == 1


async def test_any_answer_ends_the_outage() -> None:
    kube = Kube(reachable=False)
    check = check_of(kube)
    assert not await check()
    kube.silent_for = 0.0
    assert await check()


def test_a_failed_look_is_repeated_after_a_while(run_virtual: Callable[..., Any]) -> None:
    async def ask_again() -> list[bool]:
        kube = Kube(reachable=False)
        check = check_of(kube)
        before = await check()
        kube.reachable = True
        await asyncio.sleep(EVERY)
        return [before, await check(), kube.asked == 2]

    assert run_virtual(ask_again()) == [False, True, True]


def test_two_probes_at_once_are_one_question(run_virtual: Callable[..., Any]) -> None:
    async def ask_twice() -> tuple[tuple[bool, bool], int]:
        kube = Kube(takes=1.0)
        check = check_of(kube)
        first, second = await asyncio.gather(check(), check())
        return (first, second), kube.asked

    assert run_virtual(ask_twice()) == ((True, True), 1)


def test_silence_is_no_answer(run_virtual: Callable[..., Any]) -> None:
    async def ask() -> bool:
        return await check_of(Kube(takes=60.0))()

    assert not run_virtual(ask())
