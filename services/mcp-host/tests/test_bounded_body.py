"""Answers of HTTP servers that would fill our memory."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from aiohttp import web
from mcp.shared._httpx_utils import request_within_origin
from mcp_testbed import serving

from kubechain_mcp_host.connections.bounded_body import bound_bodies
from kubechain_mcp_host.stdio.message_reader import MAX_BYTES

pytestmark = pytest.mark.integration

MEBIBYTE = 1 << 20
KINDS = ["application/json", "text/plain", "text/event-stream", "application/json; charset=utf-8", ""]


class Flooder:
    """Answers with as much as it is asked for, or until its client has gone."""

    def __init__(self) -> None:
        self.sent = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {"content-type": request.query["kind"], "location": "/final"}
        response = web.StreamResponse(status=int(request.query["status"]), headers=headers)
        await response.prepare(request)
        try:
            while self.sent < int(request.query["mebibytes"]) * MEBIBYTE:
                await response.write(b"x" * MEBIBYTE)
                self.sent += MEBIBYTE
        except OSError:
            pass
        return response

    async def finish(self, request: web.Request) -> web.Response:
        return web.json_response({"arrived": True})

    async def encode(self, request: web.Request) -> web.Response:
        headers = {"content-type": request.query["kind"], "content-encoding": "gzip"}
        return web.Response(body=gzip.compress(b" " * 32 * MEBIBYTE), headers=headers)


@asynccontextmanager
async def flooding(*streaming: str) -> AsyncIterator[tuple[Flooder, httpx2.AsyncClient]]:
    flooder = Flooder()
    app = web.Application()
    app.router.add_route("*", "/flood", flooder.handle)
    app.router.add_route("*", "/final", flooder.finish)
    app.router.add_route("*", "/encoded", flooder.encode)
    async with (
        serving(app) as url,
        httpx2.AsyncClient(base_url=url, event_hooks={"response": [bound_bodies(streaming)]}) as client,
    ):
        yield flooder, client


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [200, 202, 307, 500])
async def test_no_answer_is_read_beyond_the_bound(kind: str, status: int) -> None:
    async with flooding() as (flooder, client):
        with pytest.raises(httpx2.StreamError, match="the answer has more than 16,777,216 bytes"):
            await request_within_origin(client, "POST", f"/flood?mebibytes=100&status={status}&kind={kind}")
        assert flooder.sent < 64 * MEBIBYTE  # some of it lies in the sockets


async def test_what_is_within_the_bound_is_read() -> None:
    async with flooding() as (_, client):
        answer = await request_within_origin(client, "POST", "/flood?mebibytes=16&status=200&kind=text/plain")
        assert len(answer.content) == MAX_BYTES
        answer = await request_within_origin(client, "POST", "/flood?mebibytes=1&status=307&kind=text/plain")
        assert json.loads(answer.content) == {"arrived": True}


async def test_a_stream_of_events_has_no_bound_as_a_whole_unless_it_is_a_redirect() -> None:
    async with flooding("POST") as (_, client):
        answer = await request_within_origin(client, "POST", "/flood?mebibytes=20&status=200&kind=text/event-stream")
        assert len(answer.content) == 20 * MEBIBYTE
    async with flooding("POST") as (_, client):
        with pytest.raises(httpx2.StreamError):
            await request_within_origin(client, "POST", "/flood?mebibytes=20&status=307&kind=text/event-stream")


@pytest.mark.parametrize("kind", KINDS)
async def test_no_encoded_answer_is_read(kind: str) -> None:
    async with flooding("POST") as (_, client):
        with pytest.raises(httpx2.StreamError, match=r"the answer is encoded \(gzip\), though it was asked for as it"):
            await request_within_origin(client, "POST", f"/encoded?kind={kind}")


async def test_events_are_utf_8_whatever_their_server_says() -> None:
    async with flooding("POST") as (_, client):
        url = "/flood?mebibytes=0&status=200&kind=text/event-stream;charset=punycode"
        assert (await request_within_origin(client, "POST", url)).encoding == "utf-8"
