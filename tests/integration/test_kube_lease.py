"""Leader election against a real API server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kubechain_common.kube import lease
from kubechain_common.kube.client import MERGE_PATCH, KubeClient
from kubechain_common.kube.errors import NotFoundError
from kubechain_common.kube.lease import LeaderElector
from kubechain_common.kube.paths import lease_path

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[None]]


@pytest.fixture(autouse=True)
def a_release_has_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up after two seconds, and then the next has to wait until the lease runs out."""
    monkeypatch.setattr(lease, "_RELEASE_TIMEOUT", 20.0)


class Replica:
    """One process that wants to lead, and keeps its lease when the machine stands still for some seconds."""

    def __init__(self, kube: KubeClient, namespace: str, identity: str, *, drain: float = 0.0) -> None:
        self.elector = LeaderElector(
            kube, namespace=namespace, name="l", identity=identity, renew_period=0.3, retry_period=0.3
        )
        self.stopping = asyncio.Event()
        self.leading = False
        self.terms = 0
        self._drain = drain

    async def run(self) -> None:
        await self.elector.run(self.lead, self.stopping)

    async def lead(self) -> None:
        self.leading = True
        self.terms += 1
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(self._drain)
            self.leading = False


async def spec_of(kube: KubeClient, namespace: str) -> dict[str, Any]:
    found = await kube.request("GET", lease_path(namespace, "l"))
    spec: dict[str, Any] = found["spec"]
    return spec


async def renewal(kube: KubeClient, namespace: str) -> Callable[[], Awaitable[bool]]:
    """A condition that holds once the lease is renewed after now."""
    before = (await spec_of(kube, namespace))["renewTime"]

    async def renewed() -> bool:
        return bool((await spec_of(kube, namespace))["renewTime"] != before)

    return renewed


async def is_held(kube: KubeClient, namespace: str, identity: str) -> bool:
    try:
        return bool((await spec_of(kube, namespace))["holderIdentity"] == identity)
    except NotFoundError:
        return False


async def test_a_stopped_leader_hands_over_at_once_and_after_it_has_drained(
    kube: KubeClient, namespace: str, eventually: Eventually
) -> None:
    first, second = Replica(kube, namespace, "first", drain=0.5), Replica(kube, namespace, "second")
    async with asyncio.TaskGroup() as group:
        run = group.create_task(first.run())
        await eventually(lambda: first.leading)
        group.create_task(second.run())
        for _ in range(3):  # renewals, which the standby watches
            await eventually(await renewal(kube, namespace))
        assert not second.leading
        first.stopping.set()
        await eventually(lambda: not first.leading)
        assert not second.leading
        await run
        released = time.monotonic()
        await eventually(lambda: second.leading)
        took = time.monotonic() - released
        assert not first.elector.is_certain()
        assert second.elector.is_certain()
        second.stopping.set()
    print(f"\nhanded over in {took * 1000:.0f} ms")
    assert took < 5, "released: it would run out only after some 15 s"
    spec = await spec_of(kube, namespace)
    assert spec["holderIdentity"] == ""
    assert spec["leaseTransitions"] >= 1


async def test_a_crashed_leader_is_replaced_when_its_lease_runs_out(
    kube: KubeClient, namespace: str, eventually: Eventually
) -> None:
    claim = {"holderIdentity": "crashed", "leaseDurationSeconds": 10, "renewTime": "2020-01-01T00:00:00.000000Z"}
    await kube.request("POST", lease_path(namespace), body={"metadata": {"name": "l"}, "spec": claim})
    standby = Replica(kube, namespace, "standby")
    async with asyncio.TaskGroup() as group:
        started = time.monotonic()
        group.create_task(standby.run())
        await eventually(lambda: standby.leading, within=20)
        took = time.monotonic() - started
        standby.stopping.set()
    # The holder's clock is of no account: it counts from when we saw the lease first.
    assert 9.9 < took < 19, "one lease long, not two"


async def test_the_same_identity_gets_its_lease_back_at_once(
    kube: KubeClient, namespace: str, eventually: Eventually
) -> None:
    claim = {"holderIdentity": "pod-0", "leaseDurationSeconds": 3600, "renewTime": "2999-01-01T00:00:00.000000Z"}
    await kube.request("POST", lease_path(namespace), body={"metadata": {"name": "l"}, "spec": claim})
    replica = Replica(kube, namespace, "pod-0")
    async with asyncio.TaskGroup() as group:
        group.create_task(replica.run())
        await eventually(lambda: replica.leading)
        replica.stopping.set()


async def test_a_leader_that_loses_its_lease_stops_leading_and_stands_by_again(
    kube: KubeClient, namespace: str, eventually: Eventually
) -> None:
    replica = Replica(kube, namespace, "a")
    async with asyncio.TaskGroup() as group:
        group.create_task(replica.run())
        await eventually(lambda: replica.leading)
        theft = {"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 1}}
        await kube.request("PATCH", lease_path(namespace, "l"), body=theft, content_type=MERGE_PATCH)
        await eventually(lambda: not replica.leading, within=5)  # sees it when it renews, long before its deadline
        await eventually(lambda: replica.leading)
        assert replica.terms == 2
        replica.stopping.set()


async def test_a_deleted_lease_is_made_again(kube: KubeClient, namespace: str, eventually: Eventually) -> None:
    replica = Replica(kube, namespace, "a")
    async with asyncio.TaskGroup() as group:
        group.create_task(replica.run())
        await eventually(lambda: replica.leading)
        await kube.request("DELETE", lease_path(namespace, "l"))
        await eventually(lambda: is_held(kube, namespace, "a"))
        assert replica.terms == 1
        replica.stopping.set()


async def test_of_many_one_leads(kube: KubeClient, namespace: str, eventually: Eventually) -> None:
    replicas = [Replica(kube, namespace, f"r{number}") for number in range(5)]
    async with asyncio.TaskGroup() as group:
        for replica in replicas:
            group.create_task(replica.run())
        for _ in replicas:
            await eventually(lambda: any(replica.leading for replica in replicas))
            leaders = [replica for replica in replicas if replica.leading]
            assert len(leaders) == 1
            leaders[0].stopping.set()
            await eventually(lambda gone=leaders[0]: not gone.leading)


async def test_what_the_leader_raises_comes_out_and_frees_the_lease(kube: KubeClient, namespace: str) -> None:
    async def lead() -> None:
        raise RuntimeError("leader bug")

    elector = Replica(kube, namespace, "a").elector
    with pytest.raises(ExceptionGroup) as caught:
        await elector.run(lead, asyncio.Event())
    assert caught.group_contains(RuntimeError, match="leader bug")
    assert (await spec_of(kube, namespace))["holderIdentity"] == ""
