"""Bodies that never end, and large ones, over real connections."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer

from kubechain_human_bridge.web.bodies import LIMITS, MAX_BODY, BodyLimits, receive


async def echo(request: web.Request) -> web.Response:
    return web.Response(text=str(len(await receive(request))))


def build_app(patience: float) -> web.Application:
    app = web.Application(client_max_size=MAX_BODY)
    app[LIMITS] = BodyLimits(patience)
    app.router.add_post("/", echo)
    return app


async def send(server: BaseTestServer, promised: int, sent: int) -> tuple[int, str]:
    """The status and text that a request gets of which only a part is sent."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {promised}\r\n\r\n".encode() + b"x" * sent)
        async with asyncio.timeout(30):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            return int(head.split()[1]), (await reader.readexactly(int(length.split(b":")[1]))).decode()
    finally:
        writer.close()


async def test_a_body_that_does_not_end_is_given_up() -> None:
    async with TestServer(build_app(patience=0.2)) as server:
        assert await send(server, 100, 50) == (408, "The rest of the request did not arrive in time.")
        assert await send(server, 100, 100) == (200, "100")


async def test_unfinished_large_bodies_do_not_keep_small_ones_waiting() -> None:
    async with TestServer(build_app(patience=20)) as server, asyncio.TaskGroup() as group:
        large = [group.create_task(send(server, 500_000, 400_000)) for _ in range(60)]
        assert await send(server, 1000, 1000) == (200, "1000")
        assert not any(task.done() for task in large)
        for task in large:
            task.cancel()


async def test_large_bodies_are_read_a_few_at_a_time_and_each_in_the_end() -> None:
    async with TestServer(build_app(patience=20)) as server, asyncio.TaskGroup() as group:
        answers = [group.create_task(send(server, 300_000, 300_000)) for _ in range(40)]
    assert [task.result() for task in answers] == [(200, "300000")] * 40


async def test_a_body_over_the_limit_is_refused() -> None:
    async with TestServer(build_app(patience=20)) as server:
        status, _ = await send(server, MAX_BODY + 1, MAX_BODY + 1)
        assert status == 413
