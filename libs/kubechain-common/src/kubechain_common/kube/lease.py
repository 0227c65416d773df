"""LeaderElector: of several replicas one leads, the others stand by and take over at once.

    standby --(lease free, released, expired)--> leading --(stopping)--> draining, still renewing --> released
       ^                                            |
       +------------(not renewed in time)-----------+

A standby follows the Lease by a watch, so a release is noticed in milliseconds and a crash when the lease runs out. A
leader that cannot renew gives up ``lease_duration - renew_deadline`` seconds before anyone may take over. The
identity survives a restart of its process, which therefore gets its own lease back immediately. Renewals are most of
what an idle service writes, so they are further apart than the attempts after one that failed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from kubechain_common.kube.client import MERGE_PATCH, KubeClient
from kubechain_common.kube.errors import AlreadyExistsError, ConflictError, KubeError, NotFoundError
from kubechain_common.kube.lease_record import LeaseRecord, Observation, build_claim, build_release
from kubechain_common.kube.metrics import LEADER
from kubechain_common.kube.paths import lease_path
from kubechain_common.telemetry.logging import get_logger

log = get_logger(__name__)

_RELEASE_TIMEOUT = 2.0


class LeaderElector:
    """Runs one piece of work in at most one process. All times are in seconds.

    Needs the verbs get, create, patch and watch on Leases.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        name: str,
        identity: str,
        lease_duration: float = 15,
        renew_deadline: float = 10,
        renew_period: float = 3,
        retry_period: float = 1,
    ) -> None:
        if not retry_period <= renew_period < renew_deadline < lease_duration:
            raise ValueError("a lease needs retry_period <= renew_period < renew_deadline < lease_duration")
        self._client = client
        self._namespace = namespace
        self._name = name
        self._path = lease_path(namespace, name)
        self._identity = identity
        self._lease_duration = lease_duration
        self._renew_deadline = renew_deadline
        self._renew_period = renew_period
        self._retry_period = retry_period
        self._seen = Observation(None, self._now())
        self._renewed_at = 0.0
        self._claimed = False
        self._leading = False
        self._log = log.bind(lease=name, identity=identity)
        LEADER.labels(name)  # there from the start, so that nobody leading is told from nobody being there

    def is_certain(self) -> bool:
        """True while nobody else can have the lease, also for a process that was frozen a moment ago."""
        return self._leading and self._now() < self._renewed_at + self._renew_deadline

    async def run(self, lead: Callable[[], Awaitable[None]], stopping: asyncio.Event) -> None:
        """Runs ``lead`` whenever this process is the leader; returns after ``stopping`` is set or ``lead`` returned.

        ``lead`` is cancelled when the lease is lost or the process stops, and may drain in its own ``finally``; the
        lease is kept meanwhile if possible, and released then. What ``lead`` raises ends ``run``, in an ExceptionGroup.
        """
        try:
            while await _first(self._acquire(), stopping):
                self._set_leading(True)
                try:
                    finished = await self._hold(lead, stopping)
                finally:
                    self._set_leading(False)
                if finished:
                    return
                self._log.warning("leadership lost")
        finally:
            await self._release()

    # --- leading ---

    async def _hold(self, lead: Callable[[], Awaitable[None]], stopping: asyncio.Event) -> bool:
        """Leads until told to stop or until ``lead`` returns (True), or until the lease is lost (False)."""
        async with asyncio.TaskGroup() as group:
            leading = group.create_task(_run(lead))
            renewing = group.create_task(self._renew_until_lost())
            stop = group.create_task(_run(stopping.wait))
            await asyncio.wait({leading, renewing, stop}, return_when=asyncio.FIRST_COMPLETED)
            lost = renewing.done() and not leading.done() and not stop.done()
            leading.cancel()
            await asyncio.wait({leading})
            renewing.cancel()
            stop.cancel()
        return not lost

    async def _renew_until_lost(self) -> None:
        """Renews it in time; returns when another has the lease or ``renew_deadline`` passed in vain."""
        due = self._renewed_at + self._renew_period
        while True:
            deadline = self._renewed_at + self._renew_deadline
            await asyncio.sleep(min(due, deadline) - self._now())
            started = self._now()
            if started >= deadline:
                break
            try:
                # Not all that is left, for an answer that got lost: there has to be time for another attempt.
                async with asyncio.timeout((deadline - started) / 2):
                    if not await self._try_claim():
                        break
                due = self._renewed_at + self._renew_period
            except (KubeError, TimeoutError) as error:
                self._log.warning("cannot renew the lease", error=str(error) or "timed out")
                due = started + self._retry_period
        self._set_leading(False)

    # --- standing by ---

    async def _acquire(self) -> None:
        """Returns once the lease is ours."""
        last_error = ""
        while True:
            pause = self._retry_period * random.uniform(0.1, 0.5)
            try:
                self._observe(await self._read())
                if await self._try_claim():
                    return
                await self._follow()
                # Only a watch that was closed early calls for a pause; a lease that is free now does not.
                pause = min(pause, self._wait_seconds())
            except KubeError as error:
                if str(error) != last_error:
                    last_error = str(error)
                    self._log.warning("cannot follow the lease, retrying", error=last_error)
            await asyncio.sleep(pause)

    async def _follow(self) -> None:
        """Watches the lease of another until it may be taken."""
        params = {"fieldSelector": f"metadata.name={self._name}", "timeoutSeconds": "280"}
        if self._seen.record is not None:
            params["resourceVersion"] = self._seen.record.resource_version
        watch = self._client.watch(self._path_of_all(), params)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait_seconds()) as patience, watch as events:
                async for event in events:
                    if event.type == "BOOKMARK":
                        continue
                    self._observe(None if event.type == "DELETED" else LeaseRecord.parse(event.object))
                    if self._wait_seconds() == 0:
                        return
                    patience.reschedule(self._now() + self._wait_seconds())

    def _wait_seconds(self) -> float:
        return self._seen.expires_in(self._identity, self._now())

    # --- reading and writing the Lease ---

    async def _read(self) -> LeaseRecord | None:
        try:
            return LeaseRecord.parse(await self._client.request("GET", self._path))
        except NotFoundError:
            return None

    async def _try_claim(self) -> bool:
        """Acquires or renews the lease if it may be ours; False when another one has it, or was faster."""
        while self._wait_seconds() == 0:
            started = self._now()
            # From here on the lease may be ours even if no answer comes back, so the end of ``run`` must look.
            self._claimed = True
            try:
                self._observe(await self._write_claim(self._seen.record))
            except (ConflictError, AlreadyExistsError, NotFoundError):
                self._observe(await self._read())
            else:
                self._renewed_at = started
                return True
        return False

    async def _write_claim(self, record: LeaseRecord | None) -> LeaseRecord:
        spec = build_claim(record, self._identity, self._lease_duration, _utc_now())
        if record is not None:
            return await self._patch(record, spec)
        metadata = {"name": self._name, "namespace": self._namespace}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        return LeaseRecord.parse(await self._client.request("POST", self._path_of_all(), body=body))

    async def _patch(self, record: LeaseRecord, spec: dict[str, Any]) -> LeaseRecord:
        body = {"metadata": {"resourceVersion": record.resource_version}, "spec": spec}
        return LeaseRecord.parse(await self._client.request("PATCH", self._path, body=body, content_type=MERGE_PATCH))

    async def _release(self) -> None:
        """Best effort: an unreleased lease only makes the standby wait until it runs out."""
        if not self._claimed:
            return
        try:
            async with asyncio.timeout(_RELEASE_TIMEOUT):
                self._observe(await self._read())
                if self._seen.record is not None and self._holds():
                    await self._patch(self._seen.record, build_release(_utc_now()))
                    self._log.info("lease released")
        except (KubeError, TimeoutError) as error:
            self._log.warning("cannot release the lease", error=str(error) or "timed out")

    # --- small things ---

    def _observe(self, record: LeaseRecord | None) -> None:
        self._seen = self._seen.update(record, self._now())

    def _holds(self) -> bool:
        return self._seen.record is not None and self._seen.record.holder == self._identity

    def _set_leading(self, leading: bool) -> None:
        if leading and not self._leading:
            self._log.info("leading")
        self._leading = leading
        LEADER.labels(self._name).set(leading)

    def _path_of_all(self) -> str:
        return lease_path(self._namespace)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


async def _first(work: Coroutine[Any, Any, None], stopping: asyncio.Event) -> bool:
    """Whether ``work`` was done before ``stopping`` was set; if not, it is cancelled."""
    async with asyncio.TaskGroup() as group:
        working = group.create_task(work)
        stop = group.create_task(_run(stopping.wait))
        await asyncio.wait({working, stop}, return_when=asyncio.FIRST_COMPLETED)
        won = working.done() and not stopping.is_set()
        working.cancel()
        stop.cancel()
    return won


async def _run(function: Callable[[], Awaitable[object]]) -> None:
    await function()


def _utc_now() -> datetime:
    return datetime.now(UTC)
