"""The web page of the tutorial, for machines that do not reach it: the same JSON from a server on this machine.

``python -m kubechain_cli.demo.page`` serves it until SIGTERM, after one line of JSON with its URL.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from functools import partial
from typing import Any

import aiohttp
from aiohttp import web

PUBLIC_URL = "https://swapi.dev/api/people/1"
PATH = "/api/people/1"
TIMEOUT = 2.0
"""Seconds that the public page may take before the local one stands in."""

PERSON: dict[str, Any] = {
    "name": "Luke Skywalker",
    "height": "172",
    "mass": "77",
    "hair_color": "blond",
    "skin_color": "fair",
    "eye_color": "blue",
    "birth_year": "19BBY",
    "gender": "male",
    "homeworld": "https://swapi.dev/api/planets/1/",
    "films": [f"https://swapi.dev/api/films/{number}/" for number in (1, 2, 3, 6)],
    "species": [],
    "vehicles": ["https://swapi.dev/api/vehicles/14/", "https://swapi.dev/api/vehicles/30/"],
    "starships": ["https://swapi.dev/api/starships/12/", "https://swapi.dev/api/starships/22/"],
    "created": "2014-12-09T13:50:51.644000Z",
    "edited": "2014-12-20T21:17:56.891000Z",
    "url": "https://swapi.dev/api/people/1/",
}


async def is_person_at(url: str, timeout: float = TIMEOUT) -> bool:
    """Whether the page answers in time with the person of the tutorial."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout), trust_env=True) as session,
            session.get(url) as response,
        ):
            body = await response.json(content_type=None)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return False
    return isinstance(body, dict) and body.get("name") == PERSON["name"]


def build_app() -> web.Application:
    """The page, with and without a slash at its end."""

    async def handle_person(_: web.Request) -> web.Response:
        return web.json_response(PERSON, dumps=partial(json.dumps, separators=(",", ":")))

    app = web.Application()
    app.router.add_get(PATH, handle_person)
    app.router.add_get(f"{PATH}/", handle_person)
    return app


async def serve() -> None:
    """Serve on a free port until a signal says stop."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    runner = web.AppRunner(build_app(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        print(json.dumps({"url": f"http://127.0.0.1:{port}{PATH}", "pid": os.getpid()}), flush=True)
        await stopping.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
