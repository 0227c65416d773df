"""A request to a person, and the world around a channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from kubechain_common.messages import ObjectRef
from kubechain_common.testing.slack_server import SlackServer
from kubechain_human_bridge.channels.base import Ask


@pytest.fixture
def build_ask() -> Callable[..., Ask]:
    """An approval of a call of fetch__fetch; keyword arguments replace fields."""

    def build(**fields: Any) -> Ask:
        base: dict[str, Any] = {
            "call": ObjectRef(namespace="default", name="hello-1234567-tc-01", uid="call-uid"),
            "kind": "Approval",
            "external_call_id": "ec-0123456789abcdef",
            "run_id": "kc-0123456789abcdef",
            "task": "hello",
            "agent": "my-assistant",
            "tool": "fetch__fetch",
            "arguments": '{"url":"https://swapi.dev/api/people/2"}',
            "message": "",
            "user_message": "Write me a haiku",
            "requested_at": datetime.now(UTC),
            "page_link": "http://127.0.0.1:8090/#default/hello-1234567-tc-01",
            "answer_link": "http://127.0.0.1:8090/answer?token=abc",
        }
        return Ask(**(base | fields))

    return build


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
async def slack() -> AsyncIterator[SlackServer]:
    server = SlackServer()
    async with TestServer(server.build_app()) as served:
        server.origin = str(served.make_url("")).rstrip("/")
        yield server
