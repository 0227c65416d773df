"""Three servers under the very configuration of overlays/production: they find and trust each other, and lose nothing
when one of them dies.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.rendering import of_kind, render

from kubechain_common.messages import ObjectRef, ToolResult
from kubechain_common.messages.nats_config import build_passwords_config
from kubechain_common.messages.permissions import USERS
from kubechain_common.messages.topology import TOOL_RESULTS, tool_result_subject
from kubechain_common.messaging import Bus, PublishOutcome
from kubechain_common.messaging.access import BusAccess
from kubechain_common.messaging.errors import BusUnavailableError
from kubechain_common.runtime.bootstrap import server_names
from kubechain_common.runtime.certificates import build_server_certificate
from kubechain_common.testing.nats_server import free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

Eventually = Callable[..., Awaitable[None]]

SERVERS = 3
SUBJECT = tool_result_subject("default", "uid-1")


@dataclass
class Brokers:
    """Processes in place of the pods nats-0, nats-1 and nats-2."""

    folder: Path
    ports: list[int] = field(default_factory=lambda: [free_port() for _ in range(SERVERS)])
    routes: list[int] = field(default_factory=lambda: [free_port() for _ in range(SERVERS)])
    processes: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)

    def configure(self) -> None:
        """The rendered files, with this machine's paths, names and ports."""
        config = next(o for o in of_kind(render("overlays/production"), "ConfigMap") if "nats.conf" in o["data"])
        for index in range(SERVERS):
            home = self.folder / f"nats-{index}"
            (home / "nats").mkdir(parents=True)
            for name, text in config["data"].items():
                (home / "nats" / name).write_text(self._localise(text, index, home))
            (home / "nats-users").mkdir()
            passwords = {user: f"secret of {user}" for user in USERS}
            (home / "nats-users" / "passwords.conf").write_text(build_passwords_config(passwords))
            (self.folder / "password").write_text(passwords["mcp-host"])
        for name, text in build_server_certificate(server_names("kubechain-system")).items():
            (self.folder / name).write_text(text)

    def _localise(self, text: str, index: int, home: Path) -> str:
        replaced = {
            "listen: 0.0.0.0:4222": f"listen: 127.0.0.1:{self.ports[index]}",
            "http: 0.0.0.0:8222": "",
            "listen: 0.0.0.0:6222": f"listen: 127.0.0.1:{self.routes[index]}",
            "/etc/nats-tls/": f"{self.folder}/",
            "/data": f"{home}/data",
            **{f"nats-{i}.nats-headless:6222": f"localhost:{port}" for i, port in enumerate(self.routes)},
        }
        for old, new in replaced.items():
            text = text.replace(old, new)
        return text

    async def start(self, index: int) -> None:
        binary = shutil.which("nats-server") or str(Path(sys.executable).with_name("nats-server"))
        config = self.folder / f"nats-{index}" / "nats" / "nats.conf"
        self.processes[index] = await asyncio.create_subprocess_exec(
            binary,
            "--config",
            str(config),
            env={**os.environ, "POD_NAME": f"nats-{index}"},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def kill(self, index: int) -> None:
        process = self.processes.pop(index)
        process.kill()
        await process.wait()

    def bus(self, index: int, replicas: int = 3) -> Any:
        """As mcp-host, by one of the servers."""
        access = BusAccess("mcp-host", self.folder / "password", self.folder / "ca.crt", replicas)
        return Bus.connect(f"tls://localhost:{self.ports[index]}", "mcp-host", access)


@pytest.fixture
async def brokers(tmp_path: Path) -> AsyncIterator[Brokers]:
    brokers = Brokers(tmp_path)
    brokers.configure()
    async with AsyncExitStack() as stack:
        for index in range(SERVERS):
            await brokers.start(index)
        stack.push_async_callback(_end, brokers)
        yield brokers


async def _end(brokers: Brokers) -> None:
    for index in list(brokers.processes):
        await brokers.kill(index)


def build_result() -> ToolResult:
    return ToolResult(call=ObjectRef(namespace="default", name="call", uid="uid-1"), outcome="Succeeded", content="ok")


async def replicas_of(bus: Bus, stream: str) -> int:
    return int((await bus.connection.js.stream_info(stream)).config.num_replicas)


async def test_a_result_outlives_any_one_server(brokers: Brokers, eventually: Eventually) -> None:
    async with brokers.bus(0) as bus, brokers.bus(1) as other:
        for stream in USERS["mcp-host"].streams:
            assert await replicas_of(bus, stream) == SERVERS
        assert await bus.publish(SUBJECT, build_result(), msg_id="1") is PublishOutcome.STORED
        await brokers.kill(0)

        async def is_there() -> bool:
            try:
                return bool(await other.has_message(TOOL_RESULTS.name, SUBJECT))
            except BusUnavailableError:
                return False  # the two that are left are choosing a leader

        await eventually(is_there, within=30.0)
        next_one = tool_result_subject("default", "uid-2")
        assert await other.publish_until_stored(next_one, build_result(), trace=None) is PublishOutcome.STORED


async def test_streams_of_one_server_become_those_of_three(brokers: Brokers) -> None:
    async with brokers.bus(0, replicas=1) as bus:
        assert await replicas_of(bus, TOOL_RESULTS.name) == 1
        assert await bus.publish(SUBJECT, build_result(), msg_id="1") is PublishOutcome.STORED
        async with brokers.bus(1, replicas=3) as raised:
            assert await replicas_of(raised, TOOL_RESULTS.name) == SERVERS
            assert await raised.has_message(TOOL_RESULTS.name, SUBJECT)
        async with brokers.bus(2, replicas=1) as older:
            assert await replicas_of(older, TOOL_RESULTS.name) == SERVERS, "never lowered"
