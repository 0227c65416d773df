"""The informer when the network or the API server goes away and comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest
from prometheus_client import REGISTRY

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import UnavailableError
from kubechain_common.kube.informer import Informer
from kubechain_common.kube.lease import LeaderElector

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[None]]


class ControlPlane(Protocol):
    kubeconfig: Path

    def kill(self, process: str) -> None: ...
    def is_ready(self) -> bool: ...


class Line:
    """A TCP line to the API server that can be cut and mended."""

    def __init__(self, host: str) -> None:
        parts = urlsplit(host)
        self._target = (parts.hostname, parts.port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            remote_reader, remote_writer = await asyncio.open_connection(*self._target)
            pair = {writer, remote_writer}
            self._writers |= pair
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pump(reader, remote_writer))
                    group.create_task(_pump(remote_reader, writer))
            finally:
                self._writers -= pair


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def line(
    kube: KubeClient, control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Line]:
    """A line that new clients are led over."""
    line = Line(kube.host)
    await line.mend()
    original = control_plane.kubeconfig.read_text(encoding="utf-8")
    detour = tmp_path / "kubeconfig"
    detour.write_text(original.replace(kube.host, f"https://127.0.0.1:{line.port}"), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(detour))
    yield line
    line.cut()


def build_task(namespace: str, name: str) -> Task:
    spec: dict[str, Any] = {"agentRef": {"name": "x"}, "userMessage": "hello"}
    return Task.model_validate({"metadata": {"namespace": namespace, "name": name}, "spec": spec})


def names(informer: Informer[Task]) -> list[str]:
    return sorted(task.name for task in informer.list())


def relists() -> float:
    return REGISTRY.get_sample_value("kubechain_informer_relists_total", {"kind": "Task"}) or 0.0


async def test_after_a_cut_line_the_watch_goes_on_where_it_was(
    kube: KubeClient, namespace: str, line: Line, eventually: Eventually
) -> None:
    await kube.create(build_task(namespace, "a"))
    async with KubeClient.connect("kubechain-tests") as client, asyncio.TaskGroup() as group:
        informer = Informer(client, Task, namespace=namespace)
        run = group.create_task(informer.run())
        await informer.wait_synced()
        lists = relists()
        line.cut()
        await kube.create(build_task(namespace, "b"))
        await kube.delete(Task, namespace, "a")
        assert names(informer) == ["a"]
        await line.mend()
        mended = time.monotonic()
        await eventually(lambda: names(informer) == ["b"])
        took = time.monotonic() - mended
        run.cancel()
    print(f"\ncaught up {took * 1000:.0f} ms after the line was mended")
    assert took < 5
    assert relists() == lists


async def test_when_the_history_is_lost_a_new_list_finds_the_missed_deletions(
    kube: KubeClient, namespace: str, line: Line, control_plane: ControlPlane, eventually: Eventually
) -> None:
    for name in ("a", "b", "c"):
        await kube.create(build_task(namespace, name))
    deleted: list[str] = []
    async with KubeClient.connect("kubechain-tests") as client, asyncio.TaskGroup() as group:
        informer = Informer(client, Task, namespace=namespace)
        informer.add_handler(lambda change: deleted.append(change.obj.name) if change.kind == "deleted" else None)
        run = group.create_task(informer.run())
        await informer.wait_synced()
        lists = relists()
        line.cut()
        await kube.delete(Task, namespace, "a")
        await kube.delete(Task, namespace, "b")
        await kube.create(build_task(namespace, "d"))
        # A new API server starts with an empty history.
        control_plane.kill("kube-apiserver")
        await _answering(kube)
        await kube.create(build_task(namespace, "e"))
        await line.mend()
        await eventually(lambda: names(informer) == ["c", "d", "e"], within=15)
        run.cancel()
    assert sorted(deleted) == ["a", "b"]
    assert relists() > lists
    await eventually(control_plane.is_ready, within=30)


async def test_a_restarted_api_server_is_followed_again_without_delay(
    kube: KubeClient, namespace: str, control_plane: ControlPlane, eventually: Eventually
) -> None:
    await kube.create(build_task(namespace, "a"))
    async with asyncio.TaskGroup() as group:
        informer = Informer(kube, Task, namespace=namespace)
        run = group.create_task(informer.run())
        await informer.wait_synced()
        control_plane.kill("kube-apiserver")
        await _answering(kube)
        back = time.monotonic()
        await kube.create(build_task(namespace, "b"))
        await eventually(lambda: names(informer) == ["a", "b"], within=15)
        took = time.monotonic() - back
        run.cancel()
    print(f"\nthe watch saw a new object {took * 1000:.0f} ms after the API server took writes again")
    # Our part is well under a second; a new API server may also ask for one more while it fills its watch cache, and a
    # busy machine takes some. A watch that was lost unnoticed says so only after 75 s.
    assert took < 10
    await eventually(control_plane.is_ready, within=30)


async def test_a_leader_cut_off_stops_before_the_standby_begins(
    kube: KubeClient, namespace: str, line: Line, eventually: Eventually
) -> None:
    diary: list[str] = []

    def build_lead(name: str) -> Callable[[], Awaitable[None]]:
        async def lead() -> None:
            diary.append(f"{name} leads")
            try:
                await asyncio.Event().wait()
            finally:
                diary.append(f"{name} stops")

        return lead

    def build_elector(client: KubeClient, identity: str) -> LeaderElector:
        return LeaderElector(
            client,
            namespace=namespace,
            name="l",
            identity=identity,
            lease_duration=8,
            renew_deadline=5,
            renew_period=0.3,
            retry_period=0.3,
        )

    stopping = asyncio.Event()
    async with KubeClient.connect("kubechain-tests") as client, asyncio.TaskGroup() as group:
        group.create_task(build_elector(client, "far").run(build_lead("far"), stopping))
        await eventually(lambda: diary == ["far leads"])
        group.create_task(build_elector(kube, "near").run(build_lead("near"), stopping))
        line.cut()
        await eventually(lambda: diary == ["far leads", "far stops", "near leads"], within=20)
        await line.mend()
        stopping.set()


async def _answering(kube: KubeClient) -> None:
    """Waits until our kinds are served, which is a little later than the first answer of a new API server."""
    async with asyncio.timeout(30):
        while True:
            try:
                await kube.list_page("/apis/kubechain.humanlayer.dev/v1alpha1/tasks", limit=1)
            except UnavailableError:
                await asyncio.sleep(0.02)
            else:
                return
