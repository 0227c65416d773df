"""Every provider as a host that answers by a script and refuses what the real one would refuse.

The hosts have their real names: the gateway reaches them through an HTTP proxy, which is this server. So paths, headers
and dialects are those that production uses, but for TLS.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt
from request_schemas import (
    check_anthropic,
    check_compatible,
    check_gemini,
    check_mistral,
    check_openai,
    check_vertex_claude,
    check_vertex_gemini,
)

from kubechain_cli.scripted_llm import Reply, anthropic_wire, openai_wire
from kubechain_cli.scripted_llm.conversation_rules import check_conversation
from kubechain_cli.scripted_llm.script import Usage
from kubechain_cli.scripted_llm.server import Wire
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.llm import LLMParameters, LLMSpec
from kubechain_common.messages import ResponseFormat, ToolDefinition
from kubechain_llm_gateway.providers.base import Completion, Provider
from kubechain_llm_gateway.providers.wire_target import Target

KEY = "sk-test-0123456789abcdef"
TOKEN = "ya29.a-token-of-google"
TOKEN_HOST = "oauth2.googleapis.com"
ACCOUNT = "robot@project.iam.gserviceaccount.com"
USAGE = Usage(11, 7)
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Host:
    """One provider: its spec, and what it expects on the wire."""

    target: Target
    spec: dict[str, Any]
    base_url: str
    host: str
    completions: str
    wire: Wire
    check: Callable[[dict[str, Any]], None]
    key_check: tuple[str, str]
    key_reply: Any
    validated: str
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)

    @property
    def streams(self) -> str:
        """Where streams are asked for."""
        return self.completions.replace(":rawPredict", ":streamRawPredict")

    @property
    def is_google_cloud(self) -> bool:
        return "vertex" in self.spec

    def build_spec(self, **parameters: Any) -> LLMSpec:
        given = self.spec.get("parameters", {}) | parameters
        key = {"secretKeyRef": {"name": "key", "key": "KEY"}}
        merged = {**self.spec, "apiKeyFrom": key, "parameters": {"baseUrl": self.base_url, **given}}
        return LLMSpec.model_validate(merged)


_VERTEX = {"cloudProject": "proj-1", "cloudLocation": "us-central1"}
_PLACE = "/v1/projects/proj-1/locations/us-central1"
_CLAUDE_AT_GOOGLE = f"{_PLACE}/publishers/anthropic/models"
_BEARER = {"authorization": f"Bearer {KEY}"}
_GOOGLE_BEARER = {"authorization": f"Bearer {TOKEN}"}
_LIST = ("GET", "/v1/models")
_NO_MODELS: dict[str, Any] = {"object": "list", "data": []}

HOSTS = (
    Host(
        Target.OPENAI,
        {"provider": "openai", "parameters": {"model": "gpt-4o"}, "openai": {"organization": "org-1"}},
        "http://api.openai.com/v1",
        "api.openai.com",
        "/v1/chat/completions",
        openai_wire,
        check_openai,
        _LIST,
        _NO_MODELS,
        "OpenAI API key validated successfully",
        {**_BEARER, "openai-organization": "org-1"},
    ),
    Host(
        Target.COMPATIBLE,
        {"provider": "openai", "parameters": {"model": "llama-4"}},
        "http://llm.example/v1",
        "llm.example",
        "/v1/chat/completions",
        openai_wire,
        check_compatible,
        _LIST,
        _NO_MODELS,
        "OpenAI API key validated successfully",
        _BEARER,
    ),
    Host(
        Target.AZURE,
        {"provider": "openai", "parameters": {"model": "my gpt"}, "openai": {"apiType": "AZURE"}},
        "http://res.openai.azure.com/",
        "res.openai.azure.com",
        "/openai/deployments/my gpt/chat/completions",
        openai_wire,
        check_openai,
        ("GET", "/openai/models"),
        _NO_MODELS,
        "Azure OpenAI API key validated successfully",
        {"api-key": KEY},
        {"api-version": "2024-10-21"},
    ),
    Host(
        Target.ANTHROPIC,
        {
            "provider": "anthropic",
            "parameters": {"model": "claude-sonnet-4-5"},
            "anthropic": {"promptCaching": True, "anthropicBetaHeader": "a,b"},
        },
        "http://api.anthropic.com",
        "api.anthropic.com",
        "/v1/messages",
        anthropic_wire,
        check_anthropic,
        _LIST,
        {"data": [], "has_more": False},
        "Anthropic API key validated successfully",
        {"x-api-key": KEY, "anthropic-version": "2023-06-01", "anthropic-beta": "a,b"},
    ),
    Host(
        Target.MISTRAL,
        {"provider": "mistral", "parameters": {"model": "mistral-large-latest"}, "mistral": {"randomSeed": 42}},
        "http://api.mistral.ai/v1",
        "api.mistral.ai",
        "/v1/chat/completions",
        openai_wire,
        check_mistral,
        _LIST,
        _NO_MODELS,
        "Mistral API key validated successfully",
        _BEARER,
    ),
    Host(
        Target.GOOGLE,
        {"provider": "google", "parameters": {"model": "gemini-2.5-flash"}},
        "http://generativelanguage.googleapis.com/v1beta/openai/",
        "generativelanguage.googleapis.com",
        "/v1beta/openai/chat/completions",
        openai_wire,
        check_gemini,
        ("GET", "/v1beta/openai/models"),
        _NO_MODELS,
        "Google API key validated successfully",
        _BEARER,
    ),
    Host(
        Target.VERTEX_GEMINI,
        {"provider": "vertex", "parameters": {"model": "gemini-3-pro"}, "vertex": _VERTEX},
        "http://us-central1-aiplatform.googleapis.com/v1",
        "us-central1-aiplatform.googleapis.com",
        f"{_PLACE}/endpoints/openapi/chat/completions",
        openai_wire,
        check_vertex_gemini,
        ("POST", f"{_PLACE}/publishers/google/models/gemini-3-pro:countTokens"),
        {"totalTokens": 1},
        "Vertex AI service account validated successfully",
        _GOOGLE_BEARER,
    ),
    Host(
        Target.VERTEX_CLAUDE,
        {"provider": "vertex", "parameters": {"model": "claude-sonnet-4@20250514"}, "vertex": _VERTEX},
        "http://us-central1-aiplatform.googleapis.com/v1",
        "us-central1-aiplatform.googleapis.com",
        f"{_CLAUDE_AT_GOOGLE}/claude-sonnet-4@20250514:rawPredict",
        anthropic_wire,
        check_vertex_claude,
        ("POST", f"{_CLAUDE_AT_GOOGLE}/count-tokens:rawPredict"),
        {"input_tokens": 1},
        "Vertex AI service account validated successfully",
        _GOOGLE_BEARER,
    ),
)

HOST_OF = {host.target: host for host in HOSTS}


@cache
def _private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def service_account() -> str:
    """A key file as Google gives it out, for our own token endpoint."""
    pem = _private_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "proj-1",
        "private_key_id": "key-1",
        "private_key": pem.decode(),
        "client_email": ACCOUNT,
        "token_uri": f"http://{TOKEN_HOST}/token",
    }
    return json.dumps(account, indent=2)


def key_of(host: Host) -> str:
    return service_account() if host.is_google_cloud else KEY


@dataclass
class Bench:
    """A provider as the gateway builds it, and the host at its other end.

    ``streamed`` says whether the host streams its replies; it is asked to in either case. What was heard of them while
    they came is in ``heard``. Every test calls ``complete`` and none of the provider's own.
    """

    host: Host
    spec: LLMSpec
    provider: Provider
    replies: list[Reply | web.Response | None] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    streamed: bool = True
    heard: list[str] = field(default_factory=list)
    token_lifetime: int = 3600
    token_failure: tuple[int, dict[str, str]] | None = None

    def answer(self, *replies: Reply | web.Response | None) -> None:
        """What comes next, in this order; None closes the connection without a word."""
        self.replies.extend(replies)

    async def complete(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDefinition] = (),
        response_format: ResponseFormat | None = None,
    ) -> Completion:
        """The provider's answer; fails when the host found something in the request to object to."""
        parameters = self.spec.parameters or LLMParameters()
        try:
            return await self.provider.complete(messages, tools, parameters, self.heard.append, response_format)
        finally:
            assert self.problems == []

    # --- the other end ---

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers["host"] == TOKEN_HOST:
            return await self._give_token(request)
        self.requests.append((request.method, request.path))
        if (request.method, request.path) == (self.host.key_check):
            self._check_envelope(request)
            return await self._answer(request, lambda: web.json_response(self.host.key_reply))
        return await self._handle_completion(request)

    async def _handle_completion(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.text())
        self.bodies.append(body)
        try:
            expected = self.host.streams if body.get("stream") else self.host.completions
            assert (request.method, request.path) == ("POST", expected)
            assert request.headers["content-type"] == "application/json"
            self._check_envelope(request)
            self.host.check(body)
            check_conversation(*self.host.wire.parse_request(body))
        except Exception as problem:
            self.problems.append(f"{type(problem).__name__}: {problem}")
            return web.Response(status=400, text=str(problem))
        return await self._answer(request, lambda: web.Response(status=500, text="nothing was scripted"))

    def _check_envelope(self, request: web.Request) -> None:
        assert request.headers["host"] == self.host.host
        expected = self.host.headers
        credentials = {"authorization", "api-key", "x-api-key", "openai-organization", "anthropic-beta"}
        sent = {name.lower(): value for name, value in request.headers.items()}
        if self.host.target == Target.ANTHROPIC:
            assert sent.pop("authorization") == f"Bearer {KEY}"  # by the SDK
        assert {name: sent[name] for name in expected} == expected
        assert credentials & sent.keys() <= expected.keys()
        assert dict(request.query).items() >= self.host.query.items()

    async def _answer(self, request: web.Request, default: Callable[[], web.Response]) -> web.StreamResponse:
        reply = self.replies.pop(0) if self.replies else default()
        if isinstance(reply, web.Response):
            return reply
        if reply is None:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        wire = self.host.wire
        if reply.status >= 400:
            return web.Response(
                status=reply.status,
                body=wire.render_error(reply.status, reply.error),
                headers=reply.headers,
                content_type="application/json",
            )
        body = self.bodies[-1]
        usage = reply.usage or USAGE
        if body.get("stream") and self.streamed:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            asked = body | ({"stream_options": {"include_usage": True}} if self.host.target == Target.MISTRAL else {})
            for event in wire.render_stream("1", "m", reply, usage, asked):
                await response.write(event)
            return response
        return web.Response(body=wire.render_reply("1", "m", reply, usage), content_type="application/json")

    async def _give_token(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, "token"))
        form = parse_qs(await request.text())
        assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
        public = (
            _private_key()
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        claims = jwt.decode(form["assertion"][0], certs=public, audience=f"https://{TOKEN_HOST}/token")  # type: ignore[no-untyped-call]
        assert claims["iss"] == ACCOUNT
        assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
        if self.token_failure is not None:
            status, body = self.token_failure
            return web.json_response(body, status=status)
        return web.json_response({"access_token": TOKEN, "expires_in": self.token_lifetime, "token_type": "Bearer"})


OpenBench = Callable[..., Awaitable[Bench]]
