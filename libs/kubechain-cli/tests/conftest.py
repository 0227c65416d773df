"""A loopback server in the place of the API server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
ServeApi = Callable[[Answer], Awaitable[None]]


@pytest.fixture
async def serve_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ServeApi]:
    """Has KUBECONFIG name a server that answers every request in this way, with a static token."""
    async with AsyncExitStack() as servers:

        async def serve(answer: Answer) -> None:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", answer)
            served = await servers.enter_async_context(TestServer(app))
            config = {
                "clusters": [{"name": "c", "cluster": {"server": str(served.make_url("")).rstrip("/")}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
            (tmp_path / "kubeconfig").write_text(json.dumps(config))
            monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))

        yield serve
