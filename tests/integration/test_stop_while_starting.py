"""A service that is told to end while the API server has not answered its first lists: nothing is in hand yet."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from kubechain_common.testing.nats_server import NatsServer, run_nats_server

pytestmark = pytest.mark.integration

SERVICES = ("task_controller", "llm_gateway", "toolcall_controller", "mcp_host", "human_bridge")
DRAIN_SECONDS = 30


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with run_nats_server(tmp_path / "nats") as server:
        yield server


@pytest.fixture
async def kubeconfig(tmp_path: Path) -> AsyncIterator[Path]:
    """Of an API server that says which version it is, and leaves every other question unanswered."""

    async def answer(request: web.Request) -> web.Response:
        if request.path != "/version":
            await asyncio.Event().wait()
        return web.json_response({"major": "1", "minor": "36"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    file = tmp_path / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    file.write_text(json.dumps(config), encoding="utf-8")
    yield file
    await runner.cleanup()


@pytest.mark.parametrize("service", SERVICES)
async def test_sigterm_ends_a_service_that_still_waits_for_its_first_lists(
    service: str, nats: NatsServer, kubeconfig: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"kubechain_{service}"),
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "KUBECHAIN_NATS_URL": nats.url,
            "KUBECHAIN_HTTP_PORT": "0",
            "KUBECHAIN_BRIDGE_PORT": "0",
            "KUBECHAIN_MCP_ISOLATION": "none",
            "KUBECHAIN_LOG_FORMAT": "json",
            "KUBECHAIN_DRAIN_SECONDS": str(DRAIN_SECONDS),
        },
    )
    assert process.stderr is not None
    said: dict[str, datetime] = {}
    try:
        async with asyncio.timeout(50):
            while line := (await process.stderr.readline()).decode():
                entry = json.loads(line)
                said[entry["event"]] = datetime.fromisoformat(entry["ts"])
                if entry["event"] == "started":
                    process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0, said
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    # As the process has it: how long it takes until a busy machine lets it end says nothing.
    # To wait for the lists would take all of its drain, for the key of human-bridge's links 5 s.
    assert said["stopped"] - said["stopping"] < timedelta(seconds=4)
