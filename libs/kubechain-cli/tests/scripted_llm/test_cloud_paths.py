"""The paths of Azure and Google lead to the same script as the others."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from kubechain_cli.scripted_llm import SCRIPTS, ScriptedServer
from kubechain_cli.scripted_llm.cloud_paths import TOKEN

HI = [{"role": "user", "content": "hi"}]
CHAT = {"model": "m", "messages": HI}
MESSAGES = {"anthropic_version": "vertex-2023-10-16", "max_tokens": 9, "messages": HI}
PLACE = "/v1/projects/p/locations/l"
CLAUDE = f"{PLACE}/publishers/anthropic/models"
GRANT = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "a.b.c"}


async def ask(method: str, path: str, **what: Any) -> tuple[int, Any]:
    async with (
        ScriptedServer(SCRIPTS["echo"], require_key="sk-1") as server,
        aiohttp.ClientSession(headers={"api-key": "sk-1"}) as session,
        session.request(method, server.anthropic_url + path, **what) as response,
    ):
        return response.status, await response.json()


@pytest.mark.parametrize(
    "path",
    [
        "/openai/deployments/d/chat/completions?api-version=1",
        "/v1beta/openai/chat/completions",
        f"{PLACE}/endpoints/openapi/chat/completions",
    ],
)
async def test_chat_completions(path: str) -> None:
    status, reply = await ask("POST", path, json=CHAT)
    assert status == 200
    assert reply["choices"][0]["message"]["content"].endswith("hi")


@pytest.mark.parametrize("model", ["claude-opus-4-6", "claude-sonnet-4-5@20250929"])
async def test_claude_is_named_by_the_path(model: str) -> None:
    status, reply = await ask("POST", f"{CLAUDE}/{model}:rawPredict", json=MESSAGES)
    assert (status, reply["model"]) == (200, model)
    assert reply["content"][0]["text"].endswith("hi")


@pytest.mark.parametrize("path", ["/openai/models", "/v1beta/openai/models"])
async def test_model_lists(path: str) -> None:
    status, reply = await ask("GET", path)
    assert (status, reply["object"]) == (200, "list")


@pytest.mark.parametrize(
    "path", [f"{PLACE}/publishers/google/models/g:countTokens", f"{CLAUDE}/count-tokens:rawPredict"]
)
async def test_counting_is_free(path: str) -> None:
    assert await ask("POST", path, json={}) == (200, {"totalTokens": 1, "input_tokens": 1})


async def test_a_signed_assertion_gets_a_token() -> None:
    status, reply = await ask("POST", "/token", data=GRANT)
    assert (status, reply["access_token"]) == (200, TOKEN)


async def test_anything_else_gets_none() -> None:
    status, reply = await ask("POST", "/token", data={**GRANT, "assertion": ""})
    assert (status, reply["error"]) == (400, "invalid_grant")
