"""Our providers against an implementation of the protocols that none of us wrote: aimock, from the npm registry.

Its replies are streamed as it understands the providers' documents, and its Azure paths are its own reading of them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.llm import LLMParameters, LLMSpec
from kubechain_common.messages import ToolDefinition
from kubechain_llm_gateway.providers.base import Completion, Provider
from kubechain_llm_gateway.providers.errors import (
    ProviderError,
    RejectedRequestError,
    TransientProviderError,
    UnreachableProviderError,
)
from kubechain_llm_gateway.providers.registry import ProviderRegistry

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("npx") is None, reason="npx is not installed: aimock can not run"),
]

PACKAGE = "@copilotkit/aimock@1.43.0"
NO_REGISTRY = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|E40[134]|E50[0-9]|network")
LISTENING = re.compile(r"listening on (http://\S+)")
UNICODE = "żółć 😀 there, " + "and on and on, " * 20

FIXTURES: list[dict[str, Any]] = [
    {"match": {"userMessage": "time", "hasToolResult": True}, "response": {"content": "It is noon in both."}},
    {
        "match": {"userMessage": "time"},
        "response": {
            "content": "Let me look.",
            "toolCalls": [{"name": "clock", "arguments": json.dumps({"zone": zone})} for zone in ("UTC", "CET")],
        },
    },
    {"match": {"userMessage": "hello"}, "response": {"content": UNICODE}, "latency": 10},
    {
        "match": {"userMessage": "busy"},
        "response": {"error": {"message": "Slow down.", "type": "rate_limit_error"}, "status": 429},
    },
    {
        "match": {"userMessage": "wrong"},
        "response": {"error": {"message": "No such thing.", "type": "invalid_request_error"}, "status": 400},
    },
    {"match": {"userMessage": "break off"}, "response": {"content": UNICODE}, "truncateAfterChunks": 2},
]

SPECS: dict[str, tuple[dict[str, Any], str]] = {
    "openai": ({"provider": "openai"}, "/v1"),
    "azure": ({"provider": "openai", "openai": {"apiType": "AZURE"}}, ""),
    "anthropic": ({"provider": "anthropic", "anthropic": {"promptCaching": True}}, ""),
    "mistral": ({"provider": "mistral", "mistral": {"randomSeed": 1}}, "/v1"),
    "google": ({"provider": "google"}, "/v1beta/openai"),
}


@pytest.fixture(scope="module")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where it listens. npx keeps the package in the user's own cache."""
    place = tmp_path_factory.mktemp("aimock")
    fixtures = place / "fixtures.json"
    fixtures.write_text(json.dumps({"fixtures": FIXTURES}), encoding="utf-8")
    tried = subprocess.run(
        ["npx", "-y", "-p", PACKAGE, "llmock", "--help"], capture_output=True, text=True, timeout=120, check=False
    )
    if tried.returncode != 0 and NO_REGISTRY.search(tried.stderr):
        pytest.skip(f"the npm registry can not be reached: {tried.stderr.strip().splitlines()[0]}")
    assert tried.returncode == 0, tried.stderr
    with _serve(place, "-f", str(fixtures), "-p", "0", "--strict") as process:
        assert process.stdout is not None
        try:
            yield _read_address(process.stdout)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # npx has a child of its own


def _serve(place: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["npx", "-y", "-p", PACKAGE, "llmock", *arguments],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _read_address(lines: IO[str]) -> str:
    said = []
    for line in lines:
        said.append(line)
        found = LISTENING.search(line)
        if found:
            return found[1]
    raise AssertionError(f"aimock ended before it listened: {''.join(said)}")


class Client:
    """One provider, and a conversation with it."""

    def __init__(self, provider: Provider, spec: LLMSpec) -> None:
        self.provider = provider
        self._parameters = spec.parameters or LLMParameters()
        self.heard: list[str] = []

    async def say(self, *messages: Message | str) -> Completion:
        talk = [Message(role="user", content=m) if isinstance(m, str) else m for m in messages]
        clock = ToolDefinition(name="clock", parameters={"type": "object", "properties": {"zone": {"type": "string"}}})
        return await self.provider.complete(talk, [clock], self._parameters, self.heard.append, None)


@pytest.fixture(params=SPECS)
async def client(request: pytest.FixtureRequest, aimock: str) -> AsyncIterator[Client]:
    fields, path = SPECS[request.param]
    key = {"secretKeyRef": {"name": "x", "key": "KEY"}}
    parameters = {"model": "gpt-4o", "baseUrl": aimock + path}
    spec = LLMSpec.model_validate({**fields, "apiKeyFrom": key, "parameters": parameters})
    registry = ProviderRegistry()
    yield Client(await registry.build(spec, "sk-1"), spec)
    await registry.aclose()


async def test_a_text_is_streamed_and_whole(client: Client) -> None:
    completion = await client.say("hello")
    assert completion.message == Message(role="assistant", content=UNICODE)
    assert "".join(client.heard) == UNICODE
    assert len([text for text in client.heard if text]) > 1


async def test_parallel_calls_and_their_results(client: Client) -> None:
    first = (await client.say("what time is it?")).message
    calls = first.tool_calls or []
    assert first.content == "Let me look."
    assert [(c.function.name, json.loads(c.function.arguments)) for c in calls] == [
        ("clock", {"zone": "UTC"}),
        ("clock", {"zone": "CET"}),
    ]
    results = [Message(role="tool", tool_call_id=call.id, content="noon") for call in calls]
    last = await client.say("what time is it?", first, *results)
    assert last.message.content == "It is noon in both."
    assert last.incomplete == ""


@pytest.mark.parametrize(
    ("words", "kind", "status", "sentence"),
    [("busy", TransientProviderError, 429, "Slow down."), ("wrong", RejectedRequestError, 400, "No such thing.")],
)
async def test_errors(client: Client, words: str, kind: type[ProviderError], status: int, sentence: str) -> None:
    with pytest.raises(ProviderError) as raised:
        await client.say(words)
    assert type(raised.value) is kind
    assert (raised.value.status_code, raised.value.message) == (status, sentence)


async def test_a_stream_that_breaks_off(client: Client) -> None:
    with pytest.raises(UnreachableProviderError, match="lost the connection"):
        await client.say("break off")


async def test_a_key_is_checked(client: Client) -> None:
    assert (await client.provider.validate()).detail
