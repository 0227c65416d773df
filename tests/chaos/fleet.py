"""The services as child processes of the harness: any number of replicas, each restarted when it dies.

With ``cuttable`` each process reaches the API server and NATS through proxies of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.chaos.cluster import Cluster
from tests.chaos.proxy import Proxy
from tests.chaos.until import until

from kubechain_cli.localcluster.backoff import RestartBackoff
from kubechain_cli.localcluster.child import Child
from kubechain_cli.localcluster.files import write_atomic
from kubechain_cli.localcluster.ports import choose_port
from kubechain_cli.localcluster.services import SERVICES, build_service

API, NATS = "kube-apiserver", "nats"
AT_ONCE = RestartBackoff(first=0.1, cap=0.1)
"""A kubelet would make a process wait that dies as often as these do; here the next death counts."""

LOOK_EVERY = 2.0
"""Seconds: what is done next depends on who is ready."""


@dataclass(frozen=True)
class Member:
    """One process of one service."""

    service: str
    identity: str
    child: Child
    links: dict[str, Proxy]

    @property
    def pid(self) -> int | None:
        return self.child.pid

    def send(self, number: int) -> bool:
        """False when the process is not there at the moment."""
        pid = self.child.pid
        if pid is None:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    async def wait_back(self, old_pid: int) -> None:
        await until(lambda: self.child.pid != old_pid and self.child.ready)


class Fleet:
    """All members."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members

    def of(self, service: str) -> list[Member]:
        return [member for member in self.members if member.service == service]

    def half_is_ready(self) -> bool:
        return sum(member.child.ready for member in self.members) * 2 >= len(self.members)

    async def wait_ready(self) -> None:
        for member in self.members:
            await member.child.became_ready.wait()


@asynccontextmanager
async def running_fleet(
    cluster: Cluster, namespace: str, logs: Path, *, replicas: int, cuttable: bool
) -> AsyncIterator[Fleet]:
    """The services, all ready; they serve one namespace, and their Leases live there."""
    taken: set[int] = set()
    members = []
    for service in SERVICES:
        for number in range(replicas):
            links = await _open_links(cluster) if cuttable else {}
            members.append(_build_member(cluster, namespace, logs, service, number, links, taken))
    fleet = Fleet(members)
    try:
        async with asyncio.TaskGroup() as group:
            for member in members:
                group.create_task(member.child.run())
            try:
                await fleet.wait_ready()
                yield fleet
            finally:
                async with asyncio.TaskGroup() as stopping:
                    for member in members:
                        stopping.create_task(member.child.stop())
    finally:
        for member in members:
            for link in member.links.values():
                await link.aclose()


async def _open_links(cluster: Cluster) -> dict[str, Proxy]:
    links = {name: Proxy(cluster.port(name)) for name in (API, NATS)}
    for link in links.values():
        await link.start()
    return links


def _build_member(
    cluster: Cluster, namespace: str, logs: Path, service: str, number: int, links: dict[str, Proxy], taken: set[int]
) -> Member:
    identity = f"{service}-{number}"
    port = _choose(taken)
    nats_port = links[NATS].port if links else cluster.port(NATS)
    spec = build_service(
        cluster.layout,
        service,
        kubeconfig=_write_kubeconfig(cluster, logs / f"{identity}.kubeconfig", links),
        nats_url=f"nats://127.0.0.1:{nats_port}",
        port=port,
        page_port=_choose(taken) if service == "human-bridge" else None,
    )
    env = {
        **spec.env,
        "KUBECHAIN_POD_NAME": identity,
        "KUBECHAIN_NAMESPACE": namespace,
        "KUBECHAIN_WATCH_NAMESPACE": namespace,
    }
    log_file = logs / f"{identity}.log"
    spec = replace(spec, name=identity, env=env, log_file=log_file, backoff=AT_ONCE, look_every=LOOK_EVERY)
    return Member(service, identity, Child(spec, lambda _: None), links)


def _choose(taken: set[int]) -> int:
    port = choose_port(taken)
    taken.add(port)
    return port


def _write_kubeconfig(cluster: Cluster, file: Path, links: dict[str, Proxy]) -> Path:
    if not links:
        return cluster.layout.kubeconfig
    config = json.loads(cluster.layout.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{links[API].port}"
    write_atomic(file, json.dumps(config), mode=0o600)
    return file
