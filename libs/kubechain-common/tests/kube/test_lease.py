"""When a leader writes its Lease, and when it gives up, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import NotFoundError, UnavailableError
from kubechain_common.kube.lease import LeaderElector


class OneLease:
    """The part of a KubeClient that a leader needs; knows one Lease, and when it was to be written.

    It refuses writes, or leaves them without an answer, from some second to another.
    """

    def __init__(self, *, refuses: range = range(0), hangs: range = range(0), latency: float = 0.0) -> None:
        self._refuses, self._hangs, self._latency = refuses, hangs, latency
        self._spec: dict[str, Any] = {}
        self.asked: list[float] = []

    async def request(self, method: str, path: str, *, body: dict[str, Any] | None = None, **_: Any) -> dict[str, Any]:
        if body is None:
            if not self._spec:
                raise NotFoundError("no such Lease")
        else:
            now = asyncio.get_running_loop().time()
            self.asked.append(round(now, 3))
            if int(now) in self._refuses:
                raise UnavailableError("the API server is away")
            await asyncio.sleep(1000 if int(now) in self._hangs else self._latency)
            self._spec |= body["spec"]
        return {"metadata": {"name": "l", "resourceVersion": str(len(self.asked))}, "spec": self._spec}


async def lead_for(seconds: float, lease: OneLease) -> list[tuple[float, float]]:
    """From when to when it led."""
    terms: list[tuple[float, float]] = []
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()

    async def lead() -> None:
        began = loop.time()
        try:
            await asyncio.Event().wait()
        finally:
            terms.append((round(began, 3), round(loop.time(), 3)))

    elector = LeaderElector(cast("KubeClient", lease), namespace="default", name="l", identity="me")
    async with asyncio.TaskGroup() as group:
        group.create_task(elector.run(lead, stopping))
        await asyncio.sleep(seconds)
        stopping.set()
    return terms


def test_renewals_are_three_seconds_apart_and_one_after_one_that_failed(run_virtual: Callable[..., Any]) -> None:
    lease = OneLease(refuses=range(8, 11))
    assert run_virtual(lead_for(15.5, lease)) == [(0, 15.5)]
    assert lease.asked == [0, 3, 6, 9, 10, 11, 14, 15.5]  # and the release


def test_an_outage_of_six_seconds_is_ridden_out(run_virtual: Callable[..., Any]) -> None:
    assert run_virtual(lead_for(20, OneLease(refuses=range(3, 9)))) == [(0, 20)]


def test_a_renewal_that_gets_no_answer_leaves_time_for_another(run_virtual: Callable[..., Any]) -> None:
    assert run_virtual(lead_for(20, OneLease(hangs=range(3, 4)))) == [(0, 20)]


def test_a_leader_without_an_answer_stops_at_its_deadline(run_virtual: Callable[..., Any]) -> None:
    first, *_ = run_virtual(lead_for(20, OneLease(hangs=range(3, 12))))
    assert first == (0, 10)


def test_an_api_server_that_takes_three_seconds_is_fast_enough(run_virtual: Callable[..., Any]) -> None:
    assert run_virtual(lead_for(40, OneLease(latency=3.0))) == [(3, 40)]
