"""The people: a process that is asked about calls, notes every question, and answers: ``... people FILE``.

It speaks the HumanLayer API (asked for answers) and takes webhooks (calls back). What it says of a call stands in the
call's own arguments. Prints its URL once it listens, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from aiohttp import web
from tests.chaos.notes import note
from tests.chaos.orders import comment_of

API_KEY = "chaos-api-key"
SIGNING_SECRET = "chaos-signing-secret"
THINKS = (0.05, 1.0)
"""Seconds that a person takes to answer."""
_AGAIN_AFTER = 0.3
_SETTLED = (200, 404, 409)
"""What ends a callback: taken, or not needed any more."""


def sign(message_id: str, timestamp: int, body: bytes) -> str:
    """https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md"""
    content = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(SIGNING_SECRET.encode(), content, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


class People:
    """Answers are due at a time that is drawn when the question comes."""

    def __init__(self, log: Path, group: asyncio.TaskGroup, session: aiohttp.ClientSession) -> None:
        self._log = log
        self._group = group
        self._session = session
        self._asked: dict[str, tuple[float, dict[str, Any]]] = {}
        self._hooked: set[str] = set()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/humanlayer/v1/project", self._project),
            web.post("/humanlayer/v1/function_calls", self._ask),
            web.get("/humanlayer/v1/function_calls/{id}", self._look),
            web.post("/hook", self._hook),
        ]

    async def _project(self, request: web.Request) -> web.Response:
        return web.json_response({"name": "chaos"}, status=200 if _may(request) else 401)

    async def _ask(self, request: web.Request) -> web.Response:
        if not _may(request):
            return web.json_response({}, status=401)
        body = await request.json()
        call_id = body["call_id"]
        self._note(call_id, "humanlayer", body["spec"]["kwargs"])
        if call_id in self._asked:
            return web.json_response({"detail": "it was asked before"}, status=409)
        self._asked[call_id] = (time.monotonic() + random.uniform(*THINKS), body)
        return web.json_response({**body, "status": {"approved": None}})

    async def _look(self, request: web.Request) -> web.Response:
        found = self._asked.get(request.match_info["id"])
        if found is None or not _may(request):
            return web.json_response({}, status=404 if _may(request) else 401)
        due, body = found
        status: dict[str, Any] = {"approved": None}
        if time.monotonic() >= due:
            status = {**_verdict(body["spec"]["kwargs"]), "responded_at": "2026-11-24T00:00:00Z"}
        return web.json_response({**body, "status": status})

    async def _hook(self, request: web.Request) -> web.Response:
        body = await request.json()
        arguments = body["arguments"]
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        self._note(body["callId"], "webhook", arguments)
        if body["callId"] not in self._hooked:
            self._hooked.add(body["callId"])
            self._group.create_task(self._call_back(body, arguments))
        return web.json_response({})

    async def _call_back(self, asked: dict[str, Any], arguments: dict[str, Any]) -> None:
        await asyncio.sleep(random.uniform(*THINKS))
        answer = {"token": asked["token"], "by": "chaos", **_verdict(arguments)}
        body = json.dumps(answer).encode()
        while True:
            now = int(time.time())
            headers = {
                "webhook-id": asked["callId"],
                "webhook-timestamp": str(now),
                "webhook-signature": sign(asked["callId"], now, body),
                "content-type": "application/json",
            }
            try:
                async with self._session.post(asked["callbackUrl"], data=body, headers=headers) as response:
                    if response.status in _SETTLED:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass  # the bridge is dead at the moment
            await asyncio.sleep(_AGAIN_AFTER)

    def _note(self, call_id: str, road: str, arguments: dict[str, Any]) -> None:
        where = {key: arguments[key] for key in ("task", "turn", "index")}
        note(self._log, event="asked", id=call_id, road=road, **where)


def _may(request: web.Request) -> bool:
    return request.headers.get("Authorization") == f"Bearer {API_KEY}"


def _verdict(arguments: dict[str, Any]) -> dict[str, Any]:
    key = (arguments["task"], arguments["turn"], arguments["index"])
    approved = arguments["verdict"] == "approve"
    return {"approved": approved, "comment": "" if approved else comment_of(key)}


async def serve(log: Path) -> None:
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
        app = web.Application()
        app.router.add_routes(People(log, group, session).routes())
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await runner.cleanup()
        raise SystemExit(0)


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
