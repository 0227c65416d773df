"""A provider that says what a test tells it to, and builders for what the gateway handles."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.messages import LLMRequest, ObjectRef
from kubechain_common.messages.topology import llm_request_subject
from kubechain_common.messaging.delivery import Delivery
from kubechain_common.runtime.clock import now
from kubechain_llm_gateway.providers.transport import HTTPPool

LLM_UID = "llm-uid"


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    text: str
    peer: Any = None

    @property
    def body(self) -> Any:
        return json.loads(self.text)


@dataclass
class Streamed:
    """A body that is sent piece by piece; ``at_end`` says what becomes of the connection after the last one."""

    pieces: list[bytes]
    content_type: str = "text/event-stream"
    at_end: Literal["close", "break off", "stay"] = "close"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class ScriptedProvider:
    """Answers with what was queued, in order."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    answers: list[web.Response | Streamed | Literal["hang up", "hang", "break off"]] = field(default_factory=list)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.answers.append(web.Response(text=text, status=status, headers=headers, content_type="application/json"))

    def stream(self, *pieces: bytes, **how: Any) -> None:
        self.answers.append(Streamed(list(pieces), **how))

    def hang_up(self) -> None:
        self.answers.append("hang up")

    def break_off(self) -> None:
        """Close the connection in the middle of the reply."""
        self.answers.append("break off")

    def hang(self) -> None:
        self.answers.append("hang")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        text = await request.text()
        self.seen.append(Seen(request.method, request.path, dict(request.query), headers, text, _peer_of(request)))
        answer = self.answers.pop(0)
        if isinstance(answer, web.Response):
            return answer
        if isinstance(answer, Streamed):
            return await self._send(request, answer)
        if answer == "hang":
            await self.closing.wait()
            return web.Response()
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        if answer == "break off":
            await response.prepare(request)
            await response.write(b'{"choices": [')
        if request.transport is not None:
            request.transport.close()
        return response

    async def _send(self, request: web.Request, answer: Streamed) -> web.StreamResponse:
        response = web.StreamResponse(headers={**answer.headers, "Content-Type": answer.content_type})
        await response.prepare(request)
        for piece in answer.pieces:
            await response.write(piece)
        if answer.at_end == "stay":
            await self.closing.wait()
        if answer.at_end == "break off" and request.transport is not None:
            request.transport.close()
        return response


def _peer_of(request: web.Request) -> Any:
    return request.transport.get_extra_info("peername") if request.transport is not None else None


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    scripted = ScriptedProvider()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", scripted.handle)
    server = TestServer(app)
    await server.start_server()
    scripted.url = str(server.make_url("/v1"))
    yield scripted
    scripted.closing.set()
    await server.close()


@pytest.fixture
async def pool() -> AsyncIterator[HTTPPool]:
    http_pool = HTTPPool()
    yield http_pool
    await http_pool.aclose()


def _build_llm(**spec: Any) -> LLM:
    status = spec.pop("status", {})
    metadata = {"name": "gpt-4o", "namespace": "default", "uid": LLM_UID, "resourceVersion": "1", "generation": 1}
    metadata |= spec.pop("metadata", {})
    base: dict[str, Any] = {
        "provider": "openai",
        "apiKeyFrom": {"secretKeyRef": {"name": "openai", "key": "OPENAI_API_KEY"}},
        "parameters": {"model": "gpt-4o"},
    }
    base |= spec
    base = {name: value for name, value in base.items() if value is not None}
    return LLM.model_validate({"metadata": metadata, "spec": base, "status": status})


@pytest.fixture
def build_llm() -> Callable[..., LLM]:
    """An LLM with spec fields in wire form; None removes a field."""
    return _build_llm


@pytest.fixture
def build_delivery() -> Callable[..., Delivery[LLMRequest]]:
    """A delivery of a request of turn 1 with one user message, stored just now."""
    just_now = now()

    def build(
        *,
        attempt: int = 1,
        llm_uid: str = LLM_UID,
        stored_at: datetime | None = None,
        sequence: int = 1,
    ) -> Delivery[LLMRequest]:
        request = LLMRequest(
            task=ObjectRef(namespace="default", name="hello", uid="task-uid"),
            turn=1,
            llm=ObjectRef(namespace="default", name="gpt-4o", uid=llm_uid),
            messages=[Message(role="user", content="hi")],
        )
        subject = llm_request_subject(llm_uid, "default", "task-uid", 1, "0")
        return Delivery(
            request, attempt, None, subject, stored_at or just_now, sequence, just_now if attempt == 1 else None
        )

    return build
