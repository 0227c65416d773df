"""Servers that people really use, fetched by their package runners."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from mcp_testbed import connect

from kubechain_common.testing.builders import build_mcp_server

UVX = shutil.which("uvx") or shutil.which("uvx", path=str(Path(sys.executable).parent))

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.mark.skipif(UVX is None, reason="uvx is not installed")
async def test_uvx_mcp_server_fetch() -> None:
    async with connect(build_mcp_server(command="uvx", args=["mcp-server-fetch"])) as harness:
        await harness.connected(170)
        assert [tool.name for tool in harness.state.tools] == ["fetch"]


@pytest.mark.skipif(shutil.which("npx") is None, reason="npx is not installed")
async def test_npx_server_everything() -> None:
    server = build_mcp_server(command="npx", args=["-y", "@modelcontextprotocol/server-everything"])
    async with connect(server) as harness:
        await harness.connected(170)
        assert await harness.call("echo", message="hi") == "Echo: hi"
        assert "4" in await harness.call("get-sum", a=1, b=3)
