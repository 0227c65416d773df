"""What a script can make the server do, and the server as a process."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import pytest

from kubechain_cli.scripted_llm import ChatMessage, Reply, ScriptedServer, ToolSpec
from kubechain_cli.scripted_llm.script import Usage

BODY = {"model": "any-model", "messages": [{"role": "user", "content": "hi"}]}


async def post(server: ScriptedServer) -> tuple[aiohttp.ClientResponse, dict[str, object]]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{server.url}/chat/completions", json=BODY) as response,
    ):
        return response, await response.json()


async def test_a_script_sees_the_conversation_and_decides_the_reply() -> None:
    seen: list[tuple[Sequence[ChatMessage], Sequence[ToolSpec]]] = []

    def script(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> Reply:
        seen.append((messages, tools))
        return Reply("answer", usage=Usage(11, 7), headers={"x-request-id": "r1"})

    async with ScriptedServer(script) as server:
        response, answer = await post(server)
    assert seen == [([ChatMessage("user", "hi")], [])]
    assert answer["usage"] == {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    assert answer["model"] == "any-model"
    assert response.headers["x-request-id"] == "r1"


async def test_a_script_can_fail_the_way_a_provider_does() -> None:
    def script(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> Reply:
        return Reply(status=429, error="slow down", headers={"Retry-After": "2"})

    async with ScriptedServer(script) as server:
        response, answer = await post(server)
    assert response.status == 429
    assert response.headers["Retry-After"] == "2"
    assert answer["error"] == {
        "message": "slow down",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    }


async def test_a_delayed_reply_holds_up_nobody_else() -> None:
    def script(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> Reply:
        return Reply("slow", delay=1)

    async with ScriptedServer(script) as server:
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(post(server) for _ in range(10)))
        assert 1 <= asyncio.get_running_loop().time() - began < 8, "one after the other takes 10"


async def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_open() -> None:
    async with ScriptedServer(lambda messages, tools: Reply()) as server:
        port = int(server.anthropic_url.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"):
            async with ScriptedServer(lambda messages, tools: Reply(), port=port):
                pass


async def test_as_a_process_it_tells_its_url_logs_requests_and_ends_on_sigterm(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    arguments = ("-m", "kubechain_cli.scripted_llm", "--script", "echo", "--model", "m1", "--log", str(log))
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        ready = json.loads(await process.stdout.readline())
        assert ready["pid"] == process.pid
        async with aiohttp.ClientSession(headers={"x-api-key": "sk-secret"}) as session:
            async with session.post(f"{ready['url']}/chat/completions", json=BODY) as response:
                message = (await response.json())["choices"][0]["message"]
            async with session.get(f"{ready['anthropic_url']}/v1/models") as response:
                assert [model["id"] for model in (await response.json())["data"]] == ["m1"]
    finally:
        process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), 10)
    assert code == 0
    assert message["content"] == "[scripted stand-in, not an LLM] hi"
    entry = json.loads(log.read_text())
    assert entry["path"] == "/v1/chat/completions"
    assert entry["body"] == BODY
    assert set(entry) == {"time", "path", "digest", "key_fingerprint", "body"}
    assert "sk-secret" not in log.read_text()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_reply_can_break_off_in_the_middle(path: str) -> None:
    async with ScriptedServer(lambda _, __: Reply("one two three", cut_after=3)) as server:
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        for stream in (True, False):
            async with (
                aiohttp.ClientSession() as client,
                client.post(server.anthropic_url + path, json={**body, "stream": stream}) as response,
            ):
                arrived = bytearray()
                with pytest.raises(aiohttp.ClientPayloadError):
                    await _read_into(arrived, response)
                assert (arrived.count(b"data: ") == 3) is stream


async def test_a_stream_can_pause_between_its_events() -> None:
    async with ScriptedServer(lambda _, __: Reply("one two", pause=0.05)) as server, aiohttp.ClientSession() as client:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        began = time.monotonic()
        async with client.post(f"{server.url}/chat/completions", json=body) as response:
            events = (await response.text()).count("data: ")
        assert time.monotonic() - began >= 0.05 * (events - 1)


async def _read_into(arrived: bytearray, response: aiohttp.ClientResponse) -> None:
    async for chunk in response.content.iter_any():
        arrived += chunk
