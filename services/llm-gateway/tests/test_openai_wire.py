"""The real openai SDK against a scripted server: what is really on the wire, and what errors become."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp.test_utils import unused_port

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.llm import LLMParameters
from kubechain_common.messages import ToolDefinition
from kubechain_llm_gateway.providers.base import timeout_of
from kubechain_llm_gateway.providers.errors import (
    BrokenReplyError,
    KeyRefusedError,
    ProviderError,
    RejectedRequestError,
    TransientProviderError,
    UnreachableProviderError,
    UnusableReplyError,
)
from kubechain_llm_gateway.providers.openai_chat import OpenAIChat
from kubechain_llm_gateway.providers.transport import HTTPPool

KEY = "sk-test-0123456789"
REPLY = {
    "id": "r",
    "object": "chat.completion",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
HI = [Message(role="user", content="hi")]
PLAIN = LLMParameters(model="gpt-4o")

BuildLLM = Callable[..., LLM]


@pytest.fixture
def chat(provider: Any, pool: HTTPPool, build_llm: BuildLLM) -> OpenAIChat:
    return OpenAIChat(build_llm(parameters={"model": "gpt-4o", "baseUrl": provider.url}).spec, KEY, pool)


async def test_a_call_carries_key_model_and_conversation_and_nothing_else(chat: OpenAIChat, provider: Any) -> None:
    provider.answer(REPLY)
    completion = await chat.complete(HI, [], PLAIN, None, None)
    seen = provider.seen[0]
    assert (seen.method, seen.path) == ("POST", "/v1/chat/completions")
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["content-type"] == "application/json"
    assert "openai-organization" not in seen.headers
    assert seen.body == {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], **STREAMED}
    assert completion.message == Message(role="assistant", content="hello")
    assert completion.usage.total_tokens == 7
    assert completion.stop_reason == "stop"


async def test_every_parameter_is_sent(chat: OpenAIChat, provider: Any) -> None:
    provider.answer(REPLY)
    parameters = LLMParameters(
        model="m",
        temperature="0.7",
        max_tokens=99,
        top_p="0.5",
        top_k=7,
        frequency_penalty="-1.5",
        presence_penalty="2",
    )
    await chat.complete(HI, [ToolDefinition(name="t")], parameters, None, None)
    body = provider.seen[0].body
    assert {name: body[name] for name in body if name not in ("messages", "tools")} == {
        "model": "m",
        "temperature": 0.7,
        "max_tokens": 99,
        "top_p": 0.5,
        "top_k": 7,
        "frequency_penalty": -1.5,
        "presence_penalty": 2.0,
        **STREAMED,
    }


async def test_the_official_api_gets_max_completion_tokens(pool: HTTPPool, build_llm: BuildLLM) -> None:
    chat = OpenAIChat(build_llm().spec, KEY, pool)
    assert chat._dialect.official
    assert chat._dialect.max_tokens_field == "max_completion_tokens"


async def test_an_older_name_of_the_time_limit_counts(build_llm: BuildLLM) -> None:
    assert timeout_of(build_llm(provider="mistral", mistral={"timeout": 7}).spec) == 7


async def test_the_organization_of_the_llm_is_sent_and_that_of_the_environment_is_not(
    provider: Any, pool: HTTPPool, build_llm: BuildLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "of-the-gateway")
    parameters = {"model": "m", "baseUrl": provider.url}
    for openai in (None, {"organization": "org-1"}):
        provider.answer(REPLY)
        await OpenAIChat(build_llm(parameters=parameters, openai=openai).spec, KEY, pool).complete(
            HI, [], PLAIN, None, None
        )
    first, second = provider.seen
    assert "of-the-gateway" not in str(first.headers)
    assert second.headers["openai-organization"] == "org-1"


async def test_a_keyless_server_gets_no_authorization(provider: Any, pool: HTTPPool, build_llm: BuildLLM) -> None:
    spec = build_llm(apiKeyFrom=None, parameters={"model": "m", "baseUrl": provider.url}).spec
    chat = OpenAIChat(spec, None, pool)
    provider.answer({"data": []})
    provider.answer(REPLY)
    assert "no API key is used" in (await chat.validate()).detail
    await chat.complete(HI, [], PLAIN, None, None)
    assert all("authorization" not in seen.headers for seen in provider.seen)


async def test_validation_lists_models(chat: OpenAIChat, provider: Any) -> None:
    provider.answer({"object": "list", "data": []})
    assert (await chat.validate()).detail == "OpenAI API key validated successfully"
    assert (provider.seen[0].method, provider.seen[0].path) == ("GET", "/v1/models")
    assert provider.seen[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("status", "body", "detail"),
    [
        (404, {"detail": "Not Found"}, "could not be checked"),
        (403, {"error": {"message": "Missing scopes: api.model.read"}}, "may not list models"),
    ],
)
async def test_a_server_that_lists_no_models_counts_as_reachable(
    chat: OpenAIChat, provider: Any, status: int, body: Any, detail: str
) -> None:
    provider.answer(body, status=status)
    assert detail in (await chat.validate()).detail


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RejectedRequestError),
        (401, KeyRefusedError),
        (403, KeyRefusedError),
        (404, RejectedRequestError),
        (408, TransientProviderError),
        (409, TransientProviderError),
        (422, RejectedRequestError),
        (429, TransientProviderError),
        (500, TransientProviderError),
        (503, TransientProviderError),
        (529, TransientProviderError),
    ],
)
async def test_statuses_become_our_errors_after_one_try(
    chat: OpenAIChat, provider: Any, status: int, kind: type[ProviderError]
) -> None:
    provider.answer({"error": {"message": f"No, {KEY} will not do."}}, status=status, headers={"Retry-After": "7"})
    with pytest.raises(ProviderError) as raised:
        await chat.complete(HI, [], PLAIN, None, None)
    error = raised.value
    assert type(error) is kind
    assert error.message == "No, *** will not do."
    assert (error.status_code, error.retry_after) == (status, 7.0)
    assert len(provider.seen) == 1


async def test_a_failure_in_the_body_of_a_200_is_a_failure(chat: OpenAIChat, provider: Any) -> None:
    provider.answer({"error": {"message": "upstream is busy", "code": 429}})
    with pytest.raises(TransientProviderError, match="upstream is busy"):
        await chat.complete(HI, [], PLAIN, None, None)


async def test_what_is_not_json_is_a_broken_reply(chat: OpenAIChat, provider: Any) -> None:
    provider.answer("<html>hello</html>")
    with pytest.raises(BrokenReplyError, match="not JSON"):
        await chat.complete(HI, [], PLAIN, None, None)


async def test_an_answer_over_our_limits_is_unusable(chat: OpenAIChat, provider: Any) -> None:
    provider.answer({"choices": [{"message": {"content": "x" * 1_100_000}}]})
    with pytest.raises(UnusableReplyError, match="over our limits"):
        await chat.complete(HI, [], PLAIN, None, None)


async def test_a_dropped_connection_is_unreachable(chat: OpenAIChat, provider: Any) -> None:
    provider.hang_up()
    with pytest.raises(UnreachableProviderError, match=r"lost the connection to http://127\.0\.0\.1:\d+: "):
        await chat.complete(HI, [], PLAIN, None, None)


async def test_a_closed_port_is_unreachable(pool: HTTPPool, build_llm: BuildLLM) -> None:
    spec = build_llm(parameters={"model": "m", "baseUrl": f"http://127.0.0.1:{unused_port()}/v1"}).spec
    with pytest.raises(
        UnreachableProviderError, match=r"^cannot reach http://127\.0\.0\.1:\d+: Connection refused$"
    ) as raised:
        await OpenAIChat(spec, KEY, pool).complete(HI, [], PLAIN, None, None)
    assert raised.value.retryable
    assert raised.value.__context__ is None or raised.value.__suppress_context__


async def test_no_answer_in_time_is_unreachable(provider: Any, pool: HTTPPool, build_llm: BuildLLM) -> None:
    spec = build_llm(parameters={"model": "m", "baseUrl": provider.url}, requestTimeoutSeconds=1).spec
    provider.hang()
    with pytest.raises(UnreachableProviderError, match="did not answer within 1 s"):
        await OpenAIChat(spec, KEY, pool).complete(HI, [], PLAIN, None, None)


async def test_an_llm_without_a_time_limit_gets_ten_minutes(build_llm: BuildLLM) -> None:
    assert timeout_of(build_llm().spec) == 600
    assert timeout_of(build_llm(requestTimeoutSeconds=1200).spec) == 1200


async def test_a_reply_that_breaks_off_is_told_from_none_at_all(chat: OpenAIChat, provider: Any) -> None:
    provider.break_off()
    with pytest.raises(UnreachableProviderError, match="the reply broke off in the middle") as raised:
        await chat.complete(HI, [], PLAIN, None, None)
    assert raised.value.retryable


async def test_a_reply_without_an_end_is_not_read_to_it(provider: Any, build_llm: BuildLLM) -> None:
    small = HTTPPool(max_reply=1000)
    spec = build_llm(parameters={"model": "m", "baseUrl": provider.url}).spec
    provider.answer({"choices": ["x" * 1000]})
    with pytest.raises(UnreachableProviderError, match="the reply is over 1000 bytes"):
        await OpenAIChat(spec, KEY, small).complete(HI, [], PLAIN, None, None)
    await small.aclose()


async def test_an_answer_over_our_limits_says_which(chat: OpenAIChat, provider: Any) -> None:
    provider.answer({"choices": [{"message": {"content": "x" * 1_048_577}}]})
    with pytest.raises(UnusableReplyError, match="over our limits: content: String should have at most") as raised:
        await chat.complete(HI, [], PLAIN, None, None)
    assert len(raised.value.message) < 200


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        (json.loads("[" * 70 + "]" * 70), r"what the provider added to it is nested more than 64 levels deep$"),
        ("x" * 600_000, r"what the provider added to it has 600,\d{3} bytes, and 524,288 is the most$"),
    ],
)
async def test_what_a_task_could_not_keep_is_over_our_limits(
    chat: OpenAIChat, provider: Any, extra: Any, problem: str
) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    provider.answer({"choices": [{"message": {"tool_calls": [call], "thoughts": extra}}]})
    with pytest.raises(UnusableReplyError, match=f"over our limits: {problem}"):
        await chat.complete(HI, [], PLAIN, None, None)


async def test_a_reply_of_more_than_can_be_parsed_is_over_our_limits(chat: OpenAIChat, provider: Any) -> None:
    provider.answer("[" + "[]," * 300_000 + "[]]")
    with pytest.raises(UnusableReplyError, match="over our limits: it holds more than 250,000 objects and lists"):
        await chat.complete(HI, [], PLAIN, None, None)
    provider.answer('"' + "x" * (9 << 20) + '"')
    with pytest.raises(UnusableReplyError, match=r"over our limits: it has 9,437,186 bytes, and 8,388,608 is the most"):
        await chat.complete(HI, [], PLAIN, None, None)


async def test_a_host_that_does_not_exist_is_named(pool: HTTPPool, build_llm: BuildLLM) -> None:
    spec = build_llm(parameters={"model": "m", "baseUrl": "http://no-such-host.invalid/v1"}).spec
    with pytest.raises(UnreachableProviderError, match=r"^cannot reach http://no-such-host\.invalid: [^\[]+$"):
        await OpenAIChat(spec, KEY, pool).complete(HI, [], PLAIN, None, None)


async def test_text_of_any_kind_arrives_as_it_is(chat: OpenAIChat, provider: Any) -> None:
    provider.answer({"choices": [{"message": {"content": "ok 😀"}}]})
    said = "żółć 😀 \u2028 \x00"
    completion = await chat.complete([Message(role="user", content=said)], [], PLAIN, None, None)
    assert provider.seen[0].body["messages"][0]["content"] == said
    assert completion.message.content == "ok 😀"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_provider_on_this_machine_is_asked_without_a_proxy(
    provider: Any, build_llm: BuildLLM, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    pool = HTTPPool()
    provider.answer(REPLY)
    spec = build_llm(parameters={"model": "m", "baseUrl": provider.url.replace("127.0.0.1", host)}).spec
    try:
        await OpenAIChat(spec, KEY, pool).complete(HI, [], PLAIN, None, None)
    finally:
        await pool.aclose()


async def test_proxies_of_the_environment_are_used_except_where_it_says_not_to(
    provider: Any, build_llm: BuildLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", provider.url.removesuffix("/v1"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    pool = HTTPPool()
    try:
        for base_url in ("http://llm.invalid/v1", provider.url):
            provider.answer(REPLY)
            spec = build_llm(parameters={"model": "m", "baseUrl": base_url}).spec
            await OpenAIChat(spec, KEY, pool).complete(HI, [], PLAIN, None, None)
    finally:
        await pool.aclose()
    assert [seen.headers["host"].partition(":")[0] for seen in provider.seen] == ["llm.invalid", "127.0.0.1"]
