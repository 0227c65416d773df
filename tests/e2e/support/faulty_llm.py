"""An LLM provider that fails as it is told to: the bytes, or their absence, are a test's own choice.

The scripted LLM keeps to the protocols; what breaks them is here. One server has many Tasks at once, because what it
answers depends on the first thing that the user said.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Self

from aiohttp import web

from kubechain_cli.scripted_llm.server import ANTHROPIC, OPENAI, Wire, read_key

Body = Mapping[str, Any] | str | Callable[[Wire, str], bytes]
"""JSON, text, or made for the protocol and the key of the request."""

Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]


@dataclass(frozen=True)
class Answer:
    """One answer. ``how`` says what becomes of it: sent whole, cut off, not sent at all with the connection closed, or
    with the connection open. ``headers`` may depend on the time of the request. ``until``: not before this is set."""

    body: Body = ""
    status: int = 200
    headers: Headers = field(default_factory=dict)
    how: Literal["whole", "cut", "hang up", "silence"] = "whole"
    until: threading.Event | None = None


@dataclass(frozen=True)
class Asked:
    """One request of a conversation."""

    key: str
    body: dict[str, Any]
    at: float


def refuse(status: int, sentence: str, headers: Headers = MappingProxyType({})) -> Answer:
    """An error in the shape of the provider that is asked; ``<key>`` in the sentence is the key that it was given."""
    return Answer(lambda wire, key: wire.render_error(status, sentence.replace("<key>", key)), status, headers)


def say(text: str, finish_reason: str = "stop", **message: Any) -> Answer:
    """An answer of Chat Completions."""
    return Answer({"choices": [{"message": {"content": text, **message}, "finish_reason": finish_reason}]})


def call_tools(*calls: Mapping[str, Any], finish_reason: str = "tool_calls") -> Answer:
    """Tool calls of Chat Completions, each as it goes over the wire."""
    return say("", finish_reason, tool_calls=list(calls))


def tool_call(call_id: str | None, name: str, arguments: str = "{}") -> dict[str, Any]:
    """A tool call of Chat Completions; without an id where it is None."""
    call: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return call if call_id is None else {"id": call_id, **call}


def _render_done(wire: Wire, key: str) -> bytes:
    message = {"choices": [{"message": {"content": "done"}, "finish_reason": "stop"}]}
    if wire is ANTHROPIC:
        message = {"content": [{"type": "text", "text": "done"}], "stop_reason": "end_turn"}  # type: ignore[dict-item]
    return json.dumps(message).encode()


DONE = Answer(_render_done)


class FaultyLLM:
    """Serves both protocols on one port, which stays the same over ``close`` and ``open``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plans: dict[str, list[Answer]] = {}
        self._asked: dict[str, list[Asked]] = {}
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._port = 0

    def plan(self, message: str, answers: Sequence[Answer]) -> None:
        """What to answer, in order, to the conversation that begins with the message; the last one goes on for ever."""
        with self._lock:
            self._plans[message] = list(answers)

    def asked(self, message: str) -> list[Asked]:
        """The requests of the conversation so far."""
        with self._lock:
            return list(self._asked.get(message, ()))

    @property
    def anthropic_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        return f"{self.anthropic_url}/v1"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/v1/models", self._handle_models)
        app.router.add_post("/v1/{path:.*}", self._handle_conversation)
        self._closing.clear()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self._port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Refuse connections, and end those that are open."""
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle_models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": []})

    async def _handle_conversation(self, request: web.Request) -> web.StreamResponse:
        wire = ANTHROPIC if request.path.endswith("/messages") else OPENAI
        body = await request.json()
        key = read_key(request.headers)
        answer = self._next_answer(wire, body, key)
        while answer.until is not None and not answer.until.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.02)
        return await self._send(request, answer, _render(answer.body, wire, key))

    def _next_answer(self, wire: Wire, body: dict[str, Any], key: str) -> Answer:
        messages, _ = wire.parse_request(body)
        said = next(message.text for message in messages if message.role == "user")
        with self._lock:
            self._asked.setdefault(said, []).append(Asked(key, body, time.monotonic()))
            plan = self._plans.get(said, [DONE])
            return plan.pop(0) if len(plan) > 1 else plan[0]

    async def _send(self, request: web.Request, answer: Answer, content: bytes) -> web.StreamResponse:
        headers = answer.headers() if callable(answer.headers) else answer.headers
        if answer.how == "silence":
            await self._closing.wait()
        if answer.how == "whole":
            kind = "text/html" if content.startswith(b"<") else "application/json"
            return web.Response(body=content, status=answer.status, headers=headers, content_type=kind)
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        if answer.how == "cut":
            await response.prepare(request)
            await response.write(content[: len(content) // 2])
        if request.transport is not None:
            request.transport.close()
        return response


def _render(body: Body, wire: Wire, key: str) -> bytes:
    if callable(body):
        return body(wire, key)
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()
