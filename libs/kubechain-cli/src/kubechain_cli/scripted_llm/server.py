"""The HTTP server around a script.

Each protocol is a module of pure functions with the same names (``Wire``), so one handler serves both. The two
share the path of the model list; as with the providers themselves, it is the request's headers that tell who asks.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol, Self

import orjson
from aiohttp import web

from kubechain_cli.scripted_llm import anthropic_wire, openai_wire
from kubechain_cli.scripted_llm.cloud_paths import add_cloud_paths
from kubechain_cli.scripted_llm.conversation_rules import check_conversation
from kubechain_cli.scripted_llm.errors import RefusedError
from kubechain_cli.scripted_llm.request_log import RequestLog
from kubechain_cli.scripted_llm.script import HEADER, ChatMessage, Reply, Script, ToolSpec, Usage, estimate_usage

DEFAULT_MODELS = ("gpt-4o", "claude-3-5-sonnet-latest")
MAX_BODY = 64 * 1024 * 1024
"""Bytes of the largest request; a whole context window has to fit."""


class Wire(Protocol):
    """What a provider's module gives to the server."""

    def parse_request(self, body: dict[str, Any], /) -> tuple[list[ChatMessage], list[ToolSpec]]: ...
    def render_reply(self, identity: str, model: str, reply: Reply, usage: Usage, /) -> bytes: ...
    def render_stream(
        self, identity: str, model: str, reply: Reply, usage: Usage, body: dict[str, Any], /
    ) -> Iterator[bytes]: ...
    def render_error(self, status: int, message: str, /) -> bytes: ...
    def render_model(self, model: str, /) -> dict[str, Any]: ...
    def render_models(self, models: Sequence[str], /) -> bytes: ...


OPENAI: Wire = openai_wire
ANTHROPIC: Wire = anthropic_wire


class ScriptedServer:
    """Serves a script over both protocols for as long as the context is entered.

    ``port`` 0 takes a free port. ``require_key`` None lets every key pass, and none. ``requests`` are what came in on
    the two POST paths, authorised or not. ``models`` are those listed; a conversation may name any model.
    """

    def __init__(
        self,
        script: Script,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        require_key: str | None = None,
        models: Sequence[str] = DEFAULT_MODELS,
        log_file: Path | None = None,
        log_bodies: bool = True,
        keep_requests: int = 100_000,
    ) -> None:
        self._script = script
        self._host = host
        self._port = port
        self._require_key = require_key
        self._models = tuple(models)
        self._stack = AsyncExitStack()
        self.requests = RequestLog(log_file, bodies=log_bodies, keep=keep_requests)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(self.requests)
            runner = web.AppRunner(self._build_app(), access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, self._host, self._port, backlog=1024).start()
            self._port = runner.addresses[0][1]
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def anthropic_url(self) -> str:
        """Base URL as Anthropic clients want it. The port is known once the context is entered."""
        return f"http://{self._host}:{self._port}"

    @property
    def url(self) -> str:
        """Base URL as OpenAI clients want it, ending in /v1."""
        return f"{self.anthropic_url}/v1"

    def _build_app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/v1/chat/completions", self._handle_openai)
        app.router.add_post("/v1/messages", self._handle_anthropic)
        app.router.add_get("/v1/models", self._handle_models)
        app.router.add_get("/v1/models/{model}", self._handle_models)
        add_cloud_paths(app.router, self._handle_openai, self._handle_anthropic, self._handle_models)
        app.on_response_prepare.append(_add_marker_header)
        return app

    async def _handle_openai(self, request: web.Request) -> web.StreamResponse:
        return await self._handle_conversation(OPENAI, request)

    async def _handle_anthropic(self, request: web.Request) -> web.StreamResponse:
        return await self._handle_conversation(ANTHROPIC, request)

    async def _handle_conversation(self, wire: Wire, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(wire, request)
        except ConnectionResetError:  # the caller has gone, which is no error of ours
            return web.Response()

    async def _answer(self, wire: Wire, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        key = read_key(request.headers)
        logged = self.requests.record(request.path, raw, key)
        try:
            self._check_key(key)
            body = _parse_body(raw, request.match_info)
            messages, tools = wire.parse_request(body)
            check_conversation(messages, tools)
        except RefusedError as error:
            return _json(wire.render_error(error.status, str(error)), error.status)
        reply = self._script(messages, tools)
        if reply.delay > 0:
            await asyncio.sleep(reply.delay)
        if reply.status >= 400:
            return _json(wire.render_error(reply.status, reply.error), reply.status, reply.headers)
        usage = reply.usage or estimate_usage(messages, reply)
        identity = hashlib.sha256(f"{logged.digest}{logged.time}".encode()).hexdigest()[:24]
        if body.get("stream"):
            events = wire.render_stream(identity, body["model"], reply, usage, body)
            return await _send_events(request, events, reply)
        whole = wire.render_reply(identity, body["model"], reply, usage)
        if reply.cut_after is not None:
            return await _send_half(request, whole)
        return _json(whole, headers=reply.headers)

    async def _handle_models(self, request: web.Request) -> web.StreamResponse:
        wire = _wire_of(request.headers)
        model = request.match_info.get("model")
        try:
            self._check_key(read_key(request.headers))
            if model is None:
                return _json(wire.render_models(self._models))
            if model not in self._models:
                raise RefusedError(404, f"There is no model {model!r}; this stand-in lists {', '.join(self._models)}")
            return _json(orjson.dumps(wire.render_model(model)))
        except RefusedError as error:
            return _json(wire.render_error(error.status, str(error)), error.status)

    def _check_key(self, key: str) -> None:
        if self._require_key is not None and not hmac.compare_digest(key.encode(), self._require_key.encode()):
            raise RefusedError(401, "Incorrect API key provided." if key else "You didn't provide an API key.")


def read_key(headers: Mapping[str, str]) -> str:
    """The key of a request, wherever either provider's clients put it; empty for none."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return (
        headers.get("x-api-key", "")
        or headers.get("api-key", "")
        or (token.strip() if scheme.lower() == "bearer" else "")
    )


def _wire_of(headers: Mapping[str, str]) -> Wire:
    return ANTHROPIC if "anthropic-version" in headers or "x-api-key" in headers else OPENAI


def _parse_body(raw: bytes, path: Mapping[str, str]) -> dict[str, Any]:
    """The body; at some of the clouds' paths it is the path that names the model."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RefusedError(400, "We could not parse the JSON body of your request.") from error
    if isinstance(body, dict) and "model" in path:
        body["model"] = path["model"]
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        raise RefusedError(400, "you must provide a model parameter")
    return body


def _json(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


async def _send_events(request: web.Request, events: Iterator[bytes], reply: Reply) -> web.StreamResponse:
    headers = {**reply.headers, "Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    for event in itertools.islice(events, reply.cut_after):
        await response.write(event)
        if reply.pause > 0:
            await asyncio.sleep(reply.pause)
    if reply.cut_after is not None:
        _hang_up(request)
    else:
        await response.write_eof()
    return response


async def _send_half(request: web.Request, whole: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(whole))})
    await response.prepare(request)
    await response.write(whole[: len(whole) // 2])
    _hang_up(request)
    return response


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.close()


async def _add_marker_header(request: web.Request, response: web.StreamResponse) -> None:
    response.headers[HEADER] = "true"
