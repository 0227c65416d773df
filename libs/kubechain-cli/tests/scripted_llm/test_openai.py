"""The OpenAI side, over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from kubechain_cli.scripted_llm import MARKER, SCRIPTS, ScriptedServer, fingerprint

KEY = "right-key"
TOOLS = [{"type": "function", "function": {"name": "echo__echo", "parameters": {"type": "object"}}}]


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(SCRIPTS["tools"], require_key=KEY) as server:
        yield server


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
        yield session


def order(**fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": json.dumps({"tool": "echo__echo", "arguments": {"message": "hi"}, **fields})}


async def complete(
    client: aiohttp.ClientSession, server: ScriptedServer, messages: list[dict[str, Any]], **fields: Any
) -> dict[str, Any]:
    body = {"model": "gpt-4o", "messages": messages, "tools": TOOLS, **fields}
    async with client.post(f"{server.url}/chat/completions", json=body) as response:
        assert response.status == 200, await response.text()
        assert response.headers["X-Kubechain-Scripted"] == "true"
        answer: dict[str, Any] = await response.json()
        return answer


async def test_runs_the_ordered_turns_and_then_says_that_it_is_done(
    server: ScriptedServer, client: aiohttp.ClientSession
) -> None:
    messages: list[dict[str, Any]] = [{"role": "system", "content": "x"}, order(turns=2, parallel=2)]
    ids = set()
    for _ in range(2):
        answer = await complete(client, server, messages)
        choice = answer["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        calls = choice["message"]["tool_calls"]
        assert [call["function"] for call in calls] == [{"name": "echo__echo", "arguments": '{"message":"hi"}'}] * 2
        ids |= {call["id"] for call in calls}
        messages.append(choice["message"])
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": "hi"} for call in calls]
    answer = await complete(client, server, messages)
    assert answer["choices"][0]["message"]["content"] == "done after 2 turns"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["object"] == "chat.completion"
    assert answer["system_fingerprint"] == "kubechain-scripted-stand-in"
    assert (
        answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"] > 2
    )
    assert len(ids) == 4


async def test_the_same_conversation_gets_the_same_call_ids(
    server: ScriptedServer, client: aiohttp.ClientSession
) -> None:
    first, second = [await complete(client, server, [order(turns=1)]) for _ in range(2)]
    assert first["choices"] == second["choices"]
    assert first["id"] != second["id"]


async def test_a_second_user_message_starts_its_own_count(
    server: ScriptedServer, client: aiohttp.ClientSession
) -> None:
    messages = [order(turns=0), {"role": "assistant", "content": "done after 0 turns"}, order(turns=1)]
    answer = await complete(client, server, messages)
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


async def test_streams_text_and_usage(server: ScriptedServer, client: aiohttp.ClientSession) -> None:
    chunks = await stream(client, server, [order(turns=0)], stream_options={"include_usage": True})
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks[:-1])
    assert text == "done after 0 turns"
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] > 0


async def test_streams_tool_calls(server: ScriptedServer, client: aiohttp.ClientSession) -> None:
    chunks = await stream(client, server, [order(turns=1, parallel=2)])
    deltas = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert [delta["index"] for delta in deltas] == [0, 0, 1, 1]
    assert deltas[0]["function"]["name"] == "echo__echo"
    assert deltas[0]["id"] != deltas[2]["id"]
    assert deltas[1]["function"]["arguments"] == '{"message":"hi"}'
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def stream(
    client: aiohttp.ClientSession, server: ScriptedServer, messages: list[dict[str, Any]], **fields: Any
) -> list[dict[str, Any]]:
    body = {"model": "gpt-4o", "messages": messages, "tools": TOOLS, "stream": True, **fields}
    async with client.post(f"{server.url}/chat/completions", json=body) as response:
        assert response.content_type == "text/event-stream"
        events = (await response.text()).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer wrong"}, {}])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_refuses_other_keys(server: ScriptedServer, headers: dict[str, str], method: str) -> None:
    path = "/models" if method == "GET" else "/chat/completions"
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, server.url + path, json={} if method == "POST" else None) as response,
    ):
        assert response.status == 401
        error = (await response.json())["error"]
        assert error["code"] == "invalid_api_key"
        assert "wrong" not in error["message"]


async def test_lists_its_models_and_whose_they_are(server: ScriptedServer, client: aiohttp.ClientSession) -> None:
    async with client.get(f"{server.url}/models") as response:
        models = (await response.json())["data"]
    assert [model["id"] for model in models] == ["gpt-4o", "claude-3-5-sonnet-latest"]
    assert {model["owned_by"] for model in models} == {"kubechain-scripted-stand-in"}
    async with client.get(f"{server.url}/models/gpt-4o") as response:
        assert (await response.json())["id"] == "gpt-4o"
    async with client.get(f"{server.url}/models/gpt-5") as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "at least one message"),
        ([{"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "c1", "content": "x"}], "no tool call"),
        (
            [
                {"role": "user", "content": "x"},
                {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "user", "content": "y"},
            ],
            "without a result",
        ),
        ([{"role": "nobody", "content": "x"}], "Invalid request"),
        ("text", "Invalid request"),
    ],
)
async def test_refuses_conversations_that_no_provider_takes(
    server: ScriptedServer, client: aiohttp.ClientSession, messages: Any, words: str
) -> None:
    body = {"model": "gpt-4o", "messages": messages}
    async with client.post(f"{server.url}/chat/completions", json=body) as response:
        assert response.status == 400
        assert words in (await response.json())["error"]["message"]


async def test_refuses_unfit_tool_names(server: ScriptedServer, client: aiohttp.ClientSession) -> None:
    tools = [{"type": "function", "function": {"name": "a.b"}}]
    body = {"model": "gpt-4o", "messages": [order(turns=0)], "tools": tools}
    async with client.post(f"{server.url}/chat/completions", json=body) as response:
        assert response.status == 400


async def test_notes_each_request_without_its_key(server: ScriptedServer, client: aiohttp.ClientSession) -> None:
    for turns in (0, 0, 1):
        await complete(client, server, [order(turns=turns)])
    requests = list(server.requests)
    assert [request.body["model"] for request in requests] == ["gpt-4o"] * 3
    assert requests[0].digest == requests[1].digest != requests[2].digest
    assert {request.key_fingerprint for request in requests} == {fingerprint(KEY)}
    assert all(KEY.encode() not in request.to_line() for request in requests)


async def test_what_is_no_order_is_answered_as_the_stand_in(
    server: ScriptedServer, client: aiohttp.ClientSession
) -> None:
    for text in ("hello", '{"turns": "many"}', "[1]"):
        answer = await complete(client, server, [{"role": "user", "content": text}])
        assert answer["choices"][0]["message"]["content"].startswith(MARKER)
