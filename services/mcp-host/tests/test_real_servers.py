"""Servers that people really use, fetched by their package runners, isolated as in a pod."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from mcp_testbed import connect, isolate, isolated_only

from kubechain_common.testing.builders import build_mcp_server
from kubechain_mcp_host.stdio.environment import DEFAULT_PASSTHROUGH, build_base_environment
from kubechain_mcp_host.stdio.launch import StdioLauncher

UVX = shutil.which("uvx") or shutil.which("uvx", path=str(Path(sys.executable).parent))

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180), isolated_only]


@pytest.fixture
def launcher(tmp_path: Path) -> StdioLauncher:
    return StdioLauncher(build_base_environment(os.environ, DEFAULT_PASSTHROUGH), isolate(tmp_path))


@pytest.mark.skipif(UVX is None, reason="uvx is not installed")
async def test_uvx_mcp_server_fetch(launcher: StdioLauncher) -> None:
    async with connect(build_mcp_server(command="uvx", args=["mcp-server-fetch"]), launcher=launcher) as harness:
        await harness.connected(170)
        assert [tool.name for tool in harness.state.tools] == ["fetch"]


@pytest.mark.skipif(shutil.which("npx") is None, reason="npx is not installed")
async def test_npx_server_everything(launcher: StdioLauncher) -> None:
    server = build_mcp_server(command="npx", args=["-y", "@modelcontextprotocol/server-everything"])
    async with connect(server, launcher=launcher) as harness:
        await harness.connected(170)
        assert await harness.call("echo", message="hi") == "Echo: hi"
        assert "4" in await harness.call("get-sum", a=1, b=3)
