"""Fixtures; what tests call by name is in wire_hosts, which importlib mode does not find by itself."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

sys.path.insert(0, str(Path(__file__).parent))

from wire_hosts import HOSTS, Bench, Host, OpenBench, key_of

from kubechain_llm_gateway.providers.registry import ProviderRegistry


@pytest.fixture(params=HOSTS, ids=lambda host: host.target.name.lower())
def host(request: pytest.FixtureRequest) -> Host:
    chosen: Host = request.param
    return chosen


@pytest.fixture
async def open_bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenBench]:
    """Sets a bench up for a host; keywords are ``spec.parameters``."""
    async with AsyncExitStack() as stack:

        async def open_one(host: Host, **parameters: Any) -> Bench:
            registry = ProviderRegistry()
            stack.push_async_callback(registry.aclose)
            app = web.Application(client_max_size=64 * 1024 * 1024)
            server = TestServer(app)
            for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.delenv(name, raising=False)
            spec = host.build_spec(**parameters)
            benches: list[Bench] = []

            async def handle(request: web.Request) -> web.StreamResponse:
                return await benches[0].handle(request)

            app.router.add_route("*", "/{path:.*}", handle)
            await server.start_server()
            stack.push_async_callback(server.close)
            monkeypatch.setenv("http_proxy", str(server.make_url("")))
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            benches.append(Bench(host, spec, await registry.build(spec, key_of(host))))
            return benches[0]

        yield open_one


@pytest.fixture
async def bench(host: Host, open_bench: OpenBench) -> Bench:
    return await open_bench(host)


@pytest.fixture(params=[True, False], ids=["streamed", "in one piece"])
def streamed(request: pytest.FixtureRequest, bench: Bench) -> bool:
    """Asked for by tests that are run both ways."""
    bench.streamed = request.param
    return bench.streamed
