"""mcp-host, whole, with isolated stdio servers, against the real API server and NATS."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from kubechain_common.api.v1alpha1 import MCPServer
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.event_recorder import EventRecorder
from kubechain_common.messaging import Bus
from kubechain_common.runtime.health import Health
from kubechain_common.runtime.service import ServiceContext
from kubechain_common.runtime.settings import ServiceSettings
from kubechain_common.testing.nats_server import run_nats_server
from kubechain_mcp_host.__main__ import start
from kubechain_mcp_host.guard import landlock

Eventually = Callable[..., Awaitable[None]]

PROBE = Path(__file__).resolve().parents[1] / "e2e/servers/probe_server.py"
GLUTTON = "import time\nhoard = []\nwhile True:\n    hoard.append(b'x' * (8 << 20))\n    time.sleep(0.02)\n"


def has_landlock() -> bool:
    try:
        return landlock.find_abi() >= landlock.WHOLE_ABI
    except OSError:
        return False


pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not has_landlock(), reason="this kernel has no Landlock of ABI 6: nothing can be isolated here"),
]


class World:
    """A namespace, and an mcp-host that serves it."""

    def __init__(self, kube: KubeClient, namespace: str, eventually: Eventually) -> None:
        self._kube = kube
        self.namespace = namespace
        self.eventually = eventually

    async def create(self, name: str, *args: str, **spec: Any) -> MCPServer:
        manifest = {
            "apiVersion": "kubechain.humanlayer.dev/v1alpha1",
            "kind": "MCPServer",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"transport": "stdio", "command": sys.executable, "args": list(args), **spec},
        }
        return await self._kube.create(MCPServer.model_validate(manifest))

    async def wait(self, name: str, condition: Callable[[MCPServer], bool]) -> MCPServer:
        async def holds() -> bool:
            return condition(await self._kube.get(MCPServer, self.namespace, name))

        await self.eventually(holds, within=30.0)
        return await self._kube.get(MCPServer, self.namespace, name)

    async def delete(self, name: str) -> None:
        path = f"/apis/kubechain.humanlayer.dev/v1alpha1/namespaces/{self.namespace}/mcpservers/{name}"
        await self._kube.request("DELETE", path)

    async def wait_event(self, name: str, reason: str) -> str:
        """The event's message."""
        found: list[str] = []

        async def holds() -> bool:
            events = await self._kube.request("GET", f"/api/v1/namespaces/{self.namespace}/events")
            found[:] = [
                event["message"]
                for event in events["items"]
                if event["involvedObject"]["name"] == name and event["reason"] == reason
            ]
            return bool(found)

        await self.eventually(holds, within=10.0)
        return found[0]

    @asynccontextmanager
    async def mcp_host(self, directory: Path) -> AsyncIterator[None]:
        settings = ServiceSettings(watch_namespace=self.namespace, namespace=self.namespace, drain_seconds=7)
        recorder, stopping = EventRecorder(self._kube, "mcp-host"), asyncio.Event()
        async with run_nats_server(directory) as nats, Bus.connect(nats.url, "mcp-host") as bus:
            context = ServiceContext(settings, self._kube, bus, recorder, Health(), stopping, settings.identity())
            async with asyncio.TaskGroup() as group:
                recording = group.create_task(recorder.run())
                running = group.create_task(start(context))
                yield
                stopping.set()
                await running
                await recorder.flush(2.0)
                recording.cancel()


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "homes"
    monkeypatch.setenv("KUBECHAIN_MCP_ISOLATION", "landlock")
    monkeypatch.setenv("KUBECHAIN_MCP_DATA", str(path))
    monkeypatch.setenv("KUBECHAIN_MCP_READABLE", str(PROBE.parent))
    return path


async def test_a_servers_folder_lives_as_long_as_its_mcpserver(
    kube: KubeClient, kubectl: object, namespace: str, eventually: Eventually, homes: Path, tmp_path: Path
) -> None:
    world = World(kube, namespace, eventually)
    server = await world.create("probe", str(PROBE))
    leftover = homes / str(uuid4())
    for folder in (leftover, homes / server.uid):
        (folder / "cache").mkdir(parents=True)
    async with world.mcp_host(tmp_path / "nats"):
        await world.wait("probe", lambda s: s.status.connected)
        await eventually(lambda: not leftover.exists())
        assert (homes / server.uid / "cache").exists()
        await world.delete("probe")
        await eventually(lambda: not (homes / server.uid).exists())


async def test_a_server_over_its_limit_shows_why_it_was_ended(
    kube: KubeClient, kubectl: object, namespace: str, eventually: Eventually, homes: Path, tmp_path: Path
) -> None:
    world = World(kube, namespace, eventually)
    await world.create("glutton", "-c", GLUTTON, resources={"limits": {"memory": "64Mi", "cpu": "1"}})
    async with world.mcp_host(tmp_path / "nats"):
        server = await world.wait("glutton", lambda s: s.status.status == "Error")
        words = r"Connection failed: the server used \d+Mi of memory, its limit is 64Mi (spec.resources.limits.memory)."
        begin, end = words.split(r"\d+")
        for told in (server.status.status_detail, await world.wait_event("glutton", "ConnectionFailed")):
            assert told.startswith(begin)
            assert told.endswith(end)


async def test_no_server_starts_where_it_could_not_be_isolated(
    kube: KubeClient,
    kubectl: object,
    namespace: str,
    eventually: Eventually,
    homes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBECHAIN_MCP_READABLE", "/")
    world = World(kube, namespace, eventually)
    await world.create("probe", str(PROBE))
    async with world.mcp_host(tmp_path / "nats"):
        server = await world.wait("probe", lambda s: s.status.status == "Error")
        sentence = "Stdio servers can not be isolated: /var/run/secrets must be hidden from them, but they may read /. "
        assert server.status.status_detail.startswith(sentence)
        assert (await world.wait_event("probe", "IsolationFailed")).startswith(sentence)
        await eventually(lambda: not homes.exists())
