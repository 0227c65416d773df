"""The real anthropic SDK against a scripted server: what is really on the wire, and what errors become."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.llm import LLMParameters
from kubechain_common.messages import ToolDefinition
from kubechain_llm_gateway.protocols.anthropic_mapping import DEFAULT_MAX_TOKENS
from kubechain_llm_gateway.providers.anthropic_messages import AnthropicMessages
from kubechain_llm_gateway.providers.errors import (
    BrokenReplyError,
    KeyRefusedError,
    ProviderError,
    RejectedRequestError,
    TransientProviderError,
    UnreachableProviderError,
)
from kubechain_llm_gateway.providers.transport import HTTPPool

KEY = "sk-ant-0123456789"
REPLY = {
    "id": "r",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 5, "output_tokens": 2},
}
TALK = [Message(role="system", content="Be kind."), Message(role="user", content="hi")]
PLAIN = LLMParameters(model="claude")

BuildLLM = Callable[..., LLM]


def open_messages(provider: Any, pool: HTTPPool, build_llm: BuildLLM, **spec: Any) -> AnthropicMessages:
    parameters = {"model": "claude", "baseUrl": provider.url.removesuffix("/v1")}
    return AnthropicMessages(build_llm(provider="anthropic", parameters=parameters, **spec).spec, KEY, pool)


@pytest.fixture
def claude(provider: Any, pool: HTTPPool, build_llm: BuildLLM) -> AnthropicMessages:
    return open_messages(provider, pool, build_llm)


async def test_a_call_carries_key_model_and_conversation_and_nothing_else(
    claude: AnthropicMessages, provider: Any
) -> None:
    provider.answer(REPLY)
    completion = await claude.complete(TALK, [], PLAIN, None, None)
    seen = provider.seen[0]
    assert (seen.method, seen.path) == ("POST", "/v1/messages")
    assert seen.headers["x-api-key"] == KEY
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["anthropic-version"] == "2023-06-01"
    assert "anthropic-beta" not in seen.headers
    assert seen.body == {
        "model": "claude",
        "max_tokens": DEFAULT_MAX_TOKENS,
        "system": "Be kind.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "stream": True,
    }
    assert completion.message == Message(role="assistant", content="hello")
    assert completion.usage.total_tokens == 7
    assert completion.stop_reason == "end_turn"


async def test_every_parameter_is_sent(provider: Any, pool: HTTPPool, build_llm: BuildLLM) -> None:
    claude = open_messages(provider, pool, build_llm, anthropic={"anthropicBetaHeader": "context-1m,other"})
    provider.answer(REPLY)
    parameters = LLMParameters(model="m", temperature="0.3", max_tokens=99, top_p="0.5", top_k=7)
    await claude.complete(TALK, [ToolDefinition(name="t")], parameters, None, None)
    seen = provider.seen[0]
    sent = {name: value for name, value in seen.body.items() if name not in ("messages", "tools", "system")}
    assert sent == {"model": "m", "temperature": 0.3, "max_tokens": 99, "top_p": 0.5, "top_k": 7, "stream": True}
    assert seen.headers["anthropic-beta"] == "context-1m,other"


async def test_a_base_url_may_end_with_v1(provider: Any, pool: HTTPPool, build_llm: BuildLLM) -> None:
    spec = build_llm(provider="anthropic", parameters={"model": "m", "baseUrl": provider.url + "/"}).spec
    provider.answer(REPLY)
    await AnthropicMessages(spec, KEY, pool).complete(TALK, [], PLAIN, None, None)
    assert provider.seen[0].path == "/v1/messages"


async def test_validation_lists_one_model(claude: AnthropicMessages, provider: Any) -> None:
    provider.answer({"data": [], "has_more": False})
    assert (await claude.validate()).detail == "Anthropic API key validated successfully"
    seen = provider.seen[0]
    assert (seen.method, seen.path, seen.query) == ("GET", "/v1/models", {"limit": "1"})


async def test_a_server_that_lists_no_models_counts_as_reachable(claude: AnthropicMessages, provider: Any) -> None:
    provider.answer({"detail": "Not Found"}, status=404)
    assert "could not be checked" in (await claude.validate()).detail


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RejectedRequestError),
        (401, KeyRefusedError),
        (413, RejectedRequestError),
        (429, TransientProviderError),
        (500, TransientProviderError),
        (529, TransientProviderError),
    ],
)
async def test_statuses_become_our_errors_after_one_try(
    claude: AnthropicMessages, provider: Any, status: int, kind: type[ProviderError]
) -> None:
    body = {"type": "error", "error": {"type": "some_error", "message": f"No, {KEY} will not do."}}
    provider.answer(body, status=status, headers={"retry-after": "3"})
    with pytest.raises(ProviderError) as raised:
        await claude.complete(TALK, [], PLAIN, None, None)
    error = raised.value
    assert type(error) is kind
    assert error.message == "No, *** will not do."
    assert (error.status_code, error.retry_after) == (status, 3.0)
    assert len(provider.seen) == 1


async def test_what_is_not_json_is_a_broken_reply(claude: AnthropicMessages, provider: Any) -> None:
    provider.answer("not json")
    with pytest.raises(BrokenReplyError, match="not JSON"):
        await claude.complete(TALK, [], PLAIN, None, None)


async def test_a_dropped_connection_is_unreachable(claude: AnthropicMessages, provider: Any) -> None:
    provider.hang_up()
    with pytest.raises(UnreachableProviderError, match="the connection was closed without a reply"):
        await claude.complete(TALK, [], PLAIN, None, None)
