"""The life of a service process: a real process, a real NATS, and an API server that is just reachable."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from kubechain_common.testing.nats_server import NatsServer, run_nats_server

pytestmark = pytest.mark.integration

SERVICE = """
import asyncio, signal, sys
from kubechain_common.runtime import ServiceContext, run_service

async def start(ctx: ServiceContext) -> None:
    ctx.health.add_check("own", lambda: True)
    {body}

run_service("test-service", start)
"""

UNTIL_STOPPED = "await ctx.stopping.wait()"


@pytest.fixture
async def api_server() -> AsyncIterator[str]:
    async def version(_: web.Request) -> web.Response:
        return web.json_response({"major": "1", "minor": "36"})

    app = web.Application()
    app.router.add_get("/version", version)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with run_nats_server(tmp_path) as server:
        yield server


@dataclass
class Service:
    """The process, its log read line by line, and its health endpoint."""

    process: asyncio.subprocess.Process
    log: list[dict[str, Any]]
    port: int = 0

    async def logged(self, event: str) -> dict[str, Any]:
        """The first line that says ``event``, read so far or to come."""
        for line in self.log:
            if line["event"] == event:
                return line
        async with asyncio.timeout(20):
            while line := await self.read():
                if line["event"] == event:
                    return line
        raise AssertionError(f"never logged: {event}; but {self.log}")

    async def read(self) -> dict[str, Any]:
        assert self.process.stderr is not None
        raw = await self.process.stderr.readline()
        if not raw:
            return {}
        try:
            line: dict[str, Any] = json.loads(raw)
        except ValueError:
            line = {"event": raw.decode()}
        self.log.append(line)
        return line

    async def ended(self) -> int:
        async with asyncio.timeout(20):
            while await self.read():
                pass
            return await self.process.wait()

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}{path}") as answer:
            return answer.status, await answer.text()


@asynccontextmanager
async def running(tmp_path: Path, api_url: str, nats_url: str, body: str, **env: str) -> AsyncIterator[Service]:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": api_url}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
            }
        ),
        encoding="utf-8",
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SERVICE.format(body=body),
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "KUBECHAIN_NATS_URL": nats_url,
            "KUBECHAIN_HTTP_HOST": "127.0.0.1",
            "KUBECHAIN_HTTP_PORT": "0",
            "KUBECHAIN_LOG_FORMAT": "json",
            **env,
        },
    )
    service = Service(process, [])
    try:
        if "KUBECHAIN_DRAIN_SECONDS" not in env or float(env["KUBECHAIN_DRAIN_SECONDS"]) > 0:
            service.port = (await service.logged("health endpoint up"))["port"]
        yield service
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_service_is_ready_when_connected_and_exits_0_on_sigterm(
    tmp_path: Path, api_server: str, nats: NatsServer
) -> None:
    async with running(tmp_path, api_server, nats.url, UNTIL_STOPPED) as service:
        await service.logged("started")
        status, text = await service.get("/readyz")
        assert (status, text.splitlines()) == (
            200,
            ["[+] started", "[+] not draining", "[+] kube", "[+] bus", "[+] own", "ready"],
        )
        service.process.send_signal(signal.SIGTERM)
        assert await service.ended() == 0
        assert service.log[-1]["event"] == "stopped"


async def test_before_it_is_connected_a_service_is_alive_but_not_ready(
    tmp_path: Path, api_server: str, nats: NatsServer
) -> None:
    await nats.kill()
    async with running(tmp_path, api_server, nats.url, UNTIL_STOPPED) as service:
        assert (await service.get("/livez"))[0] == 200
        assert (await service.get("/readyz"))[0] == 503
        await nats.start()
        await service.logged("started")
        assert (await service.get("/readyz"))[0] == 200


async def test_sigterm_ends_a_service_that_still_waits_for_its_connections(
    tmp_path: Path, api_server: str, nats: NatsServer
) -> None:
    await nats.kill()
    async with running(tmp_path, api_server, nats.url, UNTIL_STOPPED) as service:
        await service.logged("connecting to NATS")
        service.process.send_signal(signal.SIGTERM)
        assert await service.ended() == 0


async def test_a_service_that_loses_nats_is_not_ready_until_it_is_back(
    tmp_path: Path, api_server: str, nats: NatsServer
) -> None:
    async with running(tmp_path, api_server, nats.url, UNTIL_STOPPED) as service:
        await service.logged("started")
        await nats.kill()
        await service.logged("disconnected from NATS; reconnecting")
        status, text = await service.get("/readyz")
        assert status == 503
        assert "[-] bus" in text
        await nats.start()
        await service.logged("reconnected to NATS")
        assert (await service.get("/readyz"))[0] == 200


async def test_work_in_hand_is_finished_after_sigterm(tmp_path: Path, api_server: str, nats: NatsServer) -> None:
    body = (
        "done = asyncio.Event(); asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, done.set); "
        'await ctx.stopping.wait(); await done.wait(); print("DRAINED", file=sys.stderr)'
    )
    async with running(tmp_path, api_server, nats.url, body) as service:
        await service.logged("started")
        service.process.send_signal(signal.SIGTERM)
        await service.logged("stopping")
        status, text = await service.get("/readyz")
        assert status == 503
        assert "[-] not draining" in text
        service.process.send_signal(signal.SIGUSR1)
        assert await service.ended() == 0
    assert {"event": "DRAINED\n"} in service.log


async def test_what_does_not_drain_in_time_is_cancelled(tmp_path: Path, api_server: str, nats: NatsServer) -> None:
    body = "await asyncio.Event().wait()"
    async with running(tmp_path, api_server, nats.url, body, KUBECHAIN_DRAIN_SECONDS="0.2") as service:
        await service.logged("started")
        service.process.send_signal(signal.SIGTERM)
        assert await service.ended() == 0
        await service.logged("not drained in time: cancelling what is left")


async def test_a_second_sigterm_ends_it_at_once(tmp_path: Path, api_server: str, nats: NatsServer) -> None:
    async with running(tmp_path, api_server, nats.url, "await asyncio.Event().wait()") as service:
        await service.logged("started")
        service.process.send_signal(signal.SIGTERM)
        await service.logged("stopping")
        service.process.send_signal(signal.SIGTERM)
        assert await service.ended() == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise LookupError('no such thing')", "LookupError: no such thing"),
        ("raise ExceptionGroup('g', [LookupError('inner')])", "LookupError: inner"),
        ("return", "it ended without having been asked to"),
    ],
)
async def test_a_failure_ends_the_process_with_code_1_and_its_reason(
    tmp_path: Path, api_server: str, nats: NatsServer, body: str, reason: str
) -> None:
    async with running(tmp_path, api_server, nats.url, body) as service:
        assert (await service.logged("service failed"))["reason"] == reason
        assert await service.ended() == 1


async def test_wrong_settings_are_told_one_by_one(tmp_path: Path, api_server: str, nats: NatsServer) -> None:
    async with running(tmp_path, api_server, nats.url, UNTIL_STOPPED, KUBECHAIN_DRAIN_SECONDS="-1") as service:
        assert await service.ended() == 2
    assert service.log == [{"event": "KUBECHAIN_DRAIN_SECONDS: Input should be greater than 0\n"}]


async def test_without_a_cluster_configuration_the_reason_is_told(tmp_path: Path, nats: NatsServer) -> None:
    async with running(
        tmp_path, "http://127.0.0.1:1", nats.url, UNTIL_STOPPED, KUBECONFIG=str(tmp_path / "missing")
    ) as service:
        assert await service.ended() == 1
    assert any(line["event"] == "service failed" for line in service.log)
