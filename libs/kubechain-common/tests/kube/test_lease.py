"""How often a leader writes its Lease, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import NotFoundError, UnavailableError
from kubechain_common.kube.lease import LeaderElector


class OneLease:
    """The part of a KubeClient that a leader needs; knows one Lease, and when it was to be written."""

    def __init__(self, away: range) -> None:
        self._away = away
        self._spec: dict[str, Any] = {}
        self.asked: list[float] = []

    async def request(self, method: str, path: str, *, body: dict[str, Any] | None = None, **_: Any) -> dict[str, Any]:
        if body is None:
            if not self._spec:
                raise NotFoundError("no such Lease")
        else:
            now = asyncio.get_running_loop().time()
            self.asked.append(round(now, 3))
            if int(now) in self._away:
                raise UnavailableError("the API server is away")
            self._spec |= body["spec"]
        return {"metadata": {"name": "l", "resourceVersion": str(len(self.asked))}, "spec": self._spec}


async def lead_for(seconds: float, lease: OneLease) -> None:
    stopping = asyncio.Event()
    elector = LeaderElector(cast("KubeClient", lease), namespace="default", name="l", identity="me")
    async with asyncio.TaskGroup() as group:
        group.create_task(elector.run(asyncio.Event().wait, stopping))
        await asyncio.sleep(seconds)
        assert elector.is_certain()
        stopping.set()


def test_renewals_are_four_seconds_apart_and_two_after_one_that_failed(run_virtual: Callable[..., Any]) -> None:
    lease = OneLease(away=range(11, 15))
    run_virtual(lead_for(21, lease))
    assert lease.asked == [0, 4, 8, 12, 14, 16, 20, 21]  # and the release
