"""An LLM provider that meters: it notes who asks and when, counts what is under way, and limits or fails as it is told.

What a sweep measures is read from its log, because only the provider knows what reached it.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web


@dataclass(frozen=True)
class Call:
    """One request for a completion. ``at`` and ``ended`` in seconds of the monotonic clock."""

    at: float
    ended: float
    status: int
    key: str
    message: str


@dataclass(frozen=True)
class Refusal:
    """What is said instead of an answer."""

    status: int
    sentence: str
    retry_after: float | None = None


Rule = Callable[[float], Refusal | None]
"""Whether the call that comes at this time is refused."""


class MeteredLLM:
    """Serves Chat Completions on one port, which stays the same over ``close`` and ``open``.

    Each answer takes ``delay`` seconds and costs ``tokens``; ``rule`` may refuse it. ``down`` refuses everything, also
    to list the models. While it is ``held`` no answer leaves.
    """

    def __init__(self, *, delay: float = 0.0, tokens: int = 2, rule: Rule | None = None) -> None:
        self.delay = delay
        self.tokens = tokens
        self.rule = rule
        self.down: Refusal | None = None
        self.held = False
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._open = 0
        self._highest = 0
        self._listed: list[float] = []
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def calls(self) -> list[Call]:
        """The requests for completions that have been dealt with, in the order of their ends."""
        with self._lock:
            return list(self._calls)

    @property
    def listed(self) -> list[float]:
        """When the models were listed, which costs nothing and tells whether the provider is there."""
        with self._lock:
            return list(self._listed)

    @property
    def open(self) -> int:
        return self._open

    def take_highest(self) -> int:
        """How many were under way at once at most, since this was asked last."""
        with self._lock:
            highest, self._highest = self._highest, self._open
        return highest

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/v1/models", self._handle_models)
        app.router.add_post("/v1/chat/completions", self._handle_completion)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True, backlog=1024).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Refuse connections, and end those that are open."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle_models(self, request: web.Request) -> web.Response:
        with self._lock:
            self._listed.append(time.monotonic())
        if self.down is not None:
            return _refuse(self.down)
        return web.json_response({"data": []})

    async def _handle_completion(self, request: web.Request) -> web.Response:
        body = await request.json()
        at = time.monotonic()
        refusal = self.down or (self.rule(at) if self.rule is not None else None)
        with self._lock:
            self._open += 1
            self._highest = max(self._highest, self._open)
        status = refusal.status if refusal is not None else 200
        try:
            await asyncio.sleep(self.delay if refusal is None else 0)
            while self.held:  # noqa: ASYNC110 - another thread lets it go
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            status = 0
            raise
        finally:
            with self._lock:
                self._open -= 1
                self._calls.append(Call(at, time.monotonic(), status, _read_key(request), _read_message(body)))
        return _refuse(refusal) if refusal is not None else self._answer()

    def _answer(self) -> web.Response:
        usage = {"prompt_tokens": self.tokens - 1, "completion_tokens": 1, "total_tokens": self.tokens}
        return web.json_response(
            {"choices": [{"message": {"content": "done"}, "finish_reason": "stop"}], "usage": usage}
        )


def _refuse(refusal: Refusal) -> web.Response:
    headers = {} if refusal.retry_after is None else {"Retry-After": f"{refusal.retry_after:g}"}
    text = json.dumps({"error": {"message": refusal.sentence}})
    return web.Response(text=text, status=refusal.status, headers=headers, content_type="application/json")


def _read_key(request: web.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def _read_message(body: dict[str, Any]) -> str:
    return next(str(m["content"]) for m in body["messages"] if m["role"] == "user")
