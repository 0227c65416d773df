"""A server that speaks the HumanLayer API: it keeps requests to people, and lets a test be the people.

Real HTTP, with what the API itself insists on: the key, unique call ids (409), run and call id within 64 bytes
together, and bodies of its shape. Every request is recorded. ``fail`` makes the next ones fail.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from aiohttp import web

API_KEY = "hl-key-for-tests"
PREFIX = "/humanlayer/v1"

Collection = Literal["function_calls", "contact_requests"]
_MAX_IDS = 64


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    authorization: str
    body: Any


@dataclass(frozen=True)
class Failure:
    """How a request fails; ``method`` empty for any. One that was ``taken`` is known to the server all the same."""

    status: int
    method: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    taken: bool = False


@dataclass
class HumanLayer:
    """``keys`` are the good ones. ``answer_at_once`` answers every new request: an approval, or what a person says."""

    keys: set[str] = field(default_factory=lambda: {API_KEY})
    answer_at_once: bool | str | None = None
    seen: list[Seen] = field(default_factory=list)
    function_calls: dict[str, dict[str, Any]] = field(default_factory=dict)
    contact_requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: deque[Failure] = field(default_factory=deque)
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._released.set()

    def build_app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get(f"{PREFIX}/project", self._project),
                web.post(f"{PREFIX}/{{collection:function_calls|contact_requests}}", self._create),
                web.get(f"{PREFIX}/{{collection:function_calls|contact_requests}}/{{call_id}}", self._get),
            ]
        )
        app.middlewares.append(self._record)
        return app

    # --- what a test asks and does ---

    def fail(self, *failures: Failure) -> None:
        """The next requests fail so, in this order."""
        self.failures.extend(failures)

    def hold_replies(self) -> None:
        """From now on people are asked, and whoever asked does not hear of it. Of the server's own event loop."""
        self._released.clear()

    def release_replies(self) -> None:
        self._released.set()

    def posts(self, call_id: str | None = None) -> list[Seen]:
        """The requests that asked a person: all, or those of one call."""
        found = [seen for seen in self.seen if seen.method == "POST"]
        return [seen for seen in found if call_id is None or seen.body.get("call_id") == call_id]

    def approve(self, call_id: str, comment: str | None = None, by: str = "approver@example.com") -> None:
        self._answer(self.function_calls[call_id], approved=True, comment=comment, user_info={"email": by})

    def reject(self, call_id: str, comment: str, by: str = "approver@example.com") -> None:
        self._answer(self.function_calls[call_id], approved=False, comment=comment, user_info={"email": by})

    def respond(self, call_id: str, response: str, by: str = "expert@example.com") -> None:
        self._answer(self.contact_requests[call_id], response=response, user_info={"email": by})

    def _answer(self, request: dict[str, Any], **answer: Any) -> None:
        request["status"] |= {"responded_at": datetime.now(UTC).isoformat(), **answer}

    # --- the API ---

    @web.middleware
    async def _record(self, request: web.Request, handler: Any) -> web.StreamResponse:
        text = await request.text()
        authorization = request.headers.get("Authorization", "")
        self.seen.append(Seen(request.method, request.path, authorization, json.loads(text) if text else None))
        if authorization.removeprefix("Bearer ") not in self.keys:
            return web.json_response({"detail": "Invalid API key"}, status=401)
        failure = self._next_failure(request.method)
        if failure is None:
            response: web.StreamResponse = await handler(request)
            if request.method == "POST":
                await self._released.wait()
            return response
        if failure.taken:
            await handler(request)
        return web.json_response({"detail": "made to fail"}, status=failure.status, headers=failure.headers)

    def _next_failure(self, method: str) -> Failure | None:
        if self.failures and self.failures[0].method in ("", method):
            return self.failures.popleft()
        return None

    async def _project(self, _: web.Request) -> web.Response:
        return web.json_response({"name": "tests", "organization": "tests"})

    async def _create(self, request: web.Request) -> web.Response:
        body, collection = await request.json(), request.match_info["collection"]
        problem = _find_problem(collection, body)
        if problem:
            return web.json_response({"detail": problem}, status=422)
        kept = self._kept(collection)
        if body["call_id"] in kept:
            return web.json_response({"detail": "call_id exists"}, status=409)
        kept[body["call_id"]] = body | {"status": _build_pending()}
        self._answer_at_once(collection, body["call_id"])
        return web.json_response(kept[body["call_id"]], status=201)

    def _answer_at_once(self, collection: str, call_id: str) -> None:
        answer = self.answer_at_once
        if answer is None:
            return
        if collection == "contact_requests":
            self.respond(call_id, str(answer))
        elif answer is True:
            self.approve(call_id)
        else:
            self.reject(call_id, str(answer))

    async def _get(self, request: web.Request) -> web.Response:
        found = self._kept(request.match_info["collection"]).get(request.match_info["call_id"])
        if found is None:
            return web.json_response({"detail": "not found"}, status=404)
        return web.json_response(found)

    def _kept(self, collection: str) -> dict[str, dict[str, Any]]:
        return self.function_calls if collection == "function_calls" else self.contact_requests


def _build_pending() -> dict[str, Any]:
    empty = ("responded_at", "approved", "comment", "reject_option_name", "user_info", "response", "slack_context")
    return {"requested_at": datetime.now(UTC).isoformat(), **dict.fromkeys(empty)}


def _find_problem(collection: str, body: Any) -> str:
    """What is wrong with the body of a new request; empty when nothing is."""
    match body:
        case {"run_id": str(run_id), "call_id": str(call_id), "spec": {"channel": {**channel}, **spec}}:
            if len(run_id.encode()) + len(call_id.encode()) > _MAX_IDS:
                return "run_id and call_id are longer than 64 bytes together"
            if len(channel) != 1 or not channel.keys() <= {"slack", "email"}:
                return "channel has to be slack or email"
        case _:
            return "run_id, call_id and spec.channel are required"
    if collection == "function_calls":
        fits = isinstance(spec.get("fn"), str) and isinstance(spec.get("kwargs"), dict)
        return "" if fits else "spec needs fn and kwargs"
    return "" if isinstance(spec.get("msg"), str) else "spec needs msg"
