"""What is done to the running product. Each deed is short: what it brings about ends in the background.

A deed returns False when it found nothing to act on, because that is dead already.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.chaos.cluster import Cluster
from tests.chaos.fleet import API, NATS, Fleet, Member
from tests.chaos.journal import FROZEN, STORAGE_DELETED, Disruption, Journal
from tests.chaos.proxy import Mode

from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import KubeError
from kubechain_common.kube.paths import lease_path

CONTROL_PLANE = (API, "etcd")
FROZEN_LEADER = (16.0, 19.0)
"""Seconds; a lease is given to another after 15."""
FROZEN_WORKER = (3.0, 12.0)
"""Seconds; its messages are delivered to another after 10."""
KILLED_AT_START = 0.1
"""If more were, a service would hardly ever come up on a busy machine, and nothing would be in flight to be lost."""
STOPPED_API = 20.0
CUT = (1.0, 8.0)


@dataclass(frozen=True)
class Stage:
    """What a deed acts on. Its background work runs in ``group``."""

    cluster: Cluster
    fleet: Fleet
    kube: KubeClient
    namespace: str
    journal: Journal
    rng: random.Random
    group: asyncio.TaskGroup
    frozen: set[int] = field(default_factory=set)
    """Processes that are stopped just now, which may still count as ready."""

    async def find_leader(self, service: str) -> Member | None:
        """Nobody while the leader is frozen: what was done to it has not ended yet."""
        try:
            lease = await self.kube.request("GET", lease_path(self.namespace, f"kubechain-{service}"))
        except KubeError:
            return None
        holder = lease["spec"].get("holderIdentity")
        return next((m for m in self.fleet.of(service) if m.identity == holder and m.pid not in self.frozen), None)


Deed = Callable[[Stage], Awaitable[bool]]


# --- deaths ---


async def kill_a_service(stage: Stage) -> bool:
    """Mostly one that has come up since it was last killed; now and then one that is just starting."""
    early = stage.rng.random() < KILLED_AT_START
    awake = [member for member in stage.fleet.members if member.pid is not None and member.pid not in stage.frozen]
    alive = [member for member in awake if early or member.child.ready]
    return bool(alive) and _kill(stage, stage.rng.choice(alive))


async def kill_nats(stage: Stage) -> bool:
    return stage.cluster.process(NATS).ready and _kill_process(stage, NATS)


async def kill_the_control_plane(stage: Stage) -> bool:
    """etcd or kube-apiserver; each comes back with what it had written."""
    name = stage.rng.choice(CONTROL_PLANE)
    process = stage.cluster.process(name)
    return process.ready and process.pid not in stage.frozen and _kill_process(stage, name)


async def kill_all(stage: Stage) -> bool:
    """A wave: nats-server and every service at once."""
    killed = [_kill_process(stage, NATS), *(_kill(stage, member) for member in stage.fleet.members)]
    return any(killed)


async def kill_a_leader(stage: Stage) -> bool:
    leader = await stage.find_leader(stage.rng.choice(stage.fleet.members).service)
    return leader is not None and _kill(stage, leader)


async def kill_leader_and_standby(stage: Stage) -> bool:
    service = stage.rng.choice(stage.fleet.members).service
    killed = [_kill(stage, member) for member in stage.fleet.of(service)]
    return any(killed)


async def lose_the_storage(stage: Stage) -> bool:
    """Everything that JetStream holds is gone, and nats-server starts with an empty directory."""
    if not stage.cluster.process(NATS).ready:
        return False
    stage.cluster.drop_nats_storage()
    stage.journal.note_outage(NATS, STORAGE_DELETED).end()
    _kill_process(stage, NATS)
    stage.cluster.sweep_nats_storage()
    return True


# --- outages ---


async def stop_the_api_server(stage: Stage) -> bool:
    """SIGSTOP: connections stay open and nothing answers."""
    process = stage.cluster.process(API)
    if process.pid is None or not process.ready:
        return False
    return _stop(stage, process.pid, STOPPED_API, lambda: stage.journal.note_outage(API, "stopped"))


async def freeze_a_leader(stage: Stage) -> bool:
    """Longer than its lease: it wakes up as a leader that is none any more."""
    leader = await stage.find_leader(stage.rng.choice(stage.fleet.members).service)
    return leader is not None and _freeze(stage, leader, stage.rng.uniform(*FROZEN_LEADER))


async def freeze_a_service(stage: Stage) -> bool:
    return _freeze(stage, stage.rng.choice(stage.fleet.members), stage.rng.uniform(*FROZEN_WORKER))


async def cut_a_service_off(stage: Stage) -> bool:
    """From one of the two that it needs: connections refused, silent, or reset once."""
    member = stage.rng.choice(stage.fleet.members)
    place = stage.rng.choice((API, NATS))
    link = member.links[place]
    how = stage.rng.choice((Mode.REFUSE, Mode.BLACKHOLE, None))
    disruption = stage.journal.note_outage(member.service, f"cut off from {place}")
    if how is None:
        link.reset()
        disruption.end()
        return True
    await link.set_mode(how)

    async def mend() -> None:
        await asyncio.sleep(seconds)
        await link.set_mode(Mode.FORWARD)
        disruption.end()

    seconds = stage.rng.uniform(*CUT)
    stage.group.create_task(mend())
    return True


async def restart_a_service(stage: Stage) -> bool:
    """SIGTERM, as a rolling update sends it; returns when the new process is ready."""
    member = stage.rng.choice(stage.fleet.members)
    pid = member.pid
    if pid is None or pid in stage.frozen or not member.child.ready or not member.send(signal.SIGTERM):
        return False
    disruption = stage.journal.note_outage(member.service, "terminated")
    await member.wait_back(pid)
    disruption.end()
    return True


# --- how ---


def _kill(stage: Stage, member: Member) -> bool:
    pid = member.pid
    if pid is None or not member.send(signal.SIGKILL):
        return False
    disruption = stage.journal.note_death(member.service)
    stage.group.create_task(_end_when(member.wait_back(pid), disruption))
    return True


def _kill_process(stage: Stage, name: str) -> bool:
    pid = stage.cluster.process(name).pid
    if pid is None or not _signal(pid, signal.SIGKILL):
        return False
    disruption = stage.journal.note_death(name)
    stage.group.create_task(_end_when(stage.cluster.wait_back(name, pid), disruption))
    return True


def _freeze(stage: Stage, member: Member, seconds: float) -> bool:
    pid = member.pid
    if pid is None or not member.child.ready:
        return False
    return _stop(stage, pid, seconds, lambda: stage.journal.note_outage(member.service, FROZEN))


def _stop(stage: Stage, pid: int, seconds: float, note: Callable[[], Disruption]) -> bool:
    """SIGSTOP, and SIGCONT after so many seconds; not of what is stopped already, which that would wake too early."""
    if pid in stage.frozen or not _signal(pid, signal.SIGSTOP):
        return False
    stage.frozen.add(pid)

    def go_on() -> None:
        stage.frozen.discard(pid)
        _signal(pid, signal.SIGCONT)

    stage.group.create_task(_after(seconds, go_on, note()))
    return True


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


async def _after(seconds: float, act: Callable[[], object], disruption: Disruption) -> None:
    try:
        await asyncio.sleep(seconds)
    finally:
        act()
        disruption.end()


async def _end_when(back: Awaitable[None], disruption: Disruption) -> None:
    await back
    disruption.end()
