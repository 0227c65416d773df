"""The Anthropic side, over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from kubechain_cli.scripted_llm import SCRIPTS, ScriptedServer

KEY = "right-key"
TOOLS = [{"name": "echo__echo", "input_schema": {"type": "object"}}]
ORDER = {"role": "user", "content": json.dumps({"turns": 1, "tool": "echo__echo", "arguments": {"message": "hi"}})}


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(SCRIPTS["tools"], require_key=KEY) as server:
        yield server


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"x-api-key": KEY, "anthropic-version": "2023-06-01"}) as session:
        yield session


async def ask(client: aiohttp.ClientSession, server: ScriptedServer, messages: list[dict[str, Any]]) -> dict[str, Any]:
    body = {"model": "claude", "max_tokens": 100, "system": [{"type": "text", "text": "x"}], "tools": TOOLS}
    async with client.post(f"{server.anthropic_url}/v1/messages", json={**body, "messages": messages}) as response:
        assert response.status == 200, await response.text()
        assert response.headers["X-Kubechain-Scripted"] == "true"
        answer: dict[str, Any] = await response.json()
        return answer


async def test_runs_a_tool_turn_and_then_says_that_it_is_done(
    server: ScriptedServer, client: aiohttp.ClientSession
) -> None:
    answer = await ask(client, server, [ORDER])
    assert answer["stop_reason"] == "tool_use"
    call = answer["content"][0]
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "echo__echo", {"message": "hi"})
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": "hi"}]}
    said = {"role": "assistant", "content": answer["content"]}
    answer = await ask(client, server, [ORDER, said, {"role": "user", "content": [result]}])
    assert answer["content"] == [{"type": "text", "text": "done after 1 turns"}]
    assert (answer["type"], answer["role"], answer["stop_reason"]) == ("message", "assistant", "end_turn")
    assert answer["usage"]["input_tokens"] > 0


async def test_streams(server: ScriptedServer, client: aiohttp.ClientSession) -> None:
    body = {"model": "claude", "max_tokens": 100, "messages": [ORDER], "tools": TOOLS, "stream": True}
    async with client.post(f"{server.anthropic_url}/v1/messages", json=body) as response:
        events = [part.split("\ndata: ") for part in (await response.text()).split("\n\n") if part]
    kinds = [name.removeprefix("event: ") for name, _ in events]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert kinds == ["message_start", *block, "message_delta", "message_stop"]
    assert json.loads(events[2][1])["delta"] == {"type": "input_json_delta", "partial_json": '{"message":"hi"}'}


async def test_refuses_a_wrong_key_in_its_own_shape(server: ScriptedServer) -> None:
    headers = {"x-api-key": "wrong", "anthropic-version": "2023-06-01"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{server.anthropic_url}/v1/models") as response,
    ):
        assert response.status == 401
        answer = await response.json()
        assert answer["type"] == "error"
        assert answer["error"]["type"] == "authentication_error"


async def test_max_tokens_is_required(server: ScriptedServer, client: aiohttp.ClientSession) -> None:
    body = {"model": "claude", "messages": [ORDER]}
    async with client.post(f"{server.anthropic_url}/v1/messages", json=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_lists_its_models(server: ScriptedServer, client: aiohttp.ClientSession) -> None:
    async with client.get(f"{server.anthropic_url}/v1/models") as response:
        page = await response.json()
    assert [model["id"] for model in page["data"]] == ["gpt-4o", "claude-3-5-sonnet-latest"]
    assert page["has_more"] is False
    assert all("not an LLM" in model["display_name"] for model in page["data"])
