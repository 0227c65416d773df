"""The real SDKs against servers that stream, that do so oddly, and that do not."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.llm import LLMParameters
from kubechain_llm_gateway.providers.anthropic_messages import AnthropicMessages
from kubechain_llm_gateway.providers.base import Provider
from kubechain_llm_gateway.providers.errors import (
    BrokenReplyError,
    RejectedRequestError,
    TransientProviderError,
    UnreachableProviderError,
    UnusableReplyError,
)
from kubechain_llm_gateway.providers.openai_chat import OpenAIChat
from kubechain_llm_gateway.providers.transport import HTTPPool

KEY = "sk-test-0123456789"
HI = [Message(role="user", content="hi")]
PLAIN = LLMParameters(model="m")
WHOLE = {
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}

BuildLLM = Callable[..., LLM]


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def chunk(text: str = "", finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})


USAGE = event({"choices": [], "usage": WHOLE["usage"]})
DONE = b"data: [DONE]\n\n"
CHAT = [chunk("hel"), chunk("lo"), chunk(finish="stop"), USAGE, DONE]
MESSAGE = [
    event({"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 5, "output_tokens": 1}}}),
    event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hel"}}),
    event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}}),
    event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
    event({"type": "message_stop"}),
]


@pytest.fixture
def chat(provider: Any, pool: HTTPPool, build_llm: BuildLLM) -> OpenAIChat:
    return OpenAIChat(build_llm(parameters={"model": "m", "baseUrl": provider.url}).spec, KEY, pool)


@pytest.fixture
def claude(provider: Any, pool: HTTPPool, build_llm: BuildLLM) -> AnthropicMessages:
    parameters = {"model": "m", "baseUrl": provider.url.removesuffix("/v1")}
    return AnthropicMessages(build_llm(provider="anthropic", parameters=parameters).spec, KEY, pool)


async def say(client: Provider) -> tuple[str, int, list[str]]:
    """(the answer, its tokens, what was heard of it)"""
    heard: list[str] = []
    completion = await client.complete(HI, [], PLAIN, heard.append, None)
    return completion.message.content, completion.usage.total_tokens, heard


async def test_text_is_heard_as_it_comes_and_the_answer_is_the_same(
    chat: OpenAIChat, claude: AnthropicMessages, provider: Any
) -> None:
    for client, pieces in ((chat, CHAT), (claude, MESSAGE)):
        provider.stream(*pieces)
        text, tokens, heard = await say(client)
        assert (text, tokens) == ("hello", 7)
        assert "".join(heard) == "hello"
        provider.stream(*pieces)
        assert (await client.complete(HI, [], PLAIN, None, None)).message.content == "hello"


async def test_text_is_heard_before_the_answer_is_complete(chat: OpenAIChat, provider: Any) -> None:
    provider.stream(*CHAT[:1], at_end="stay")
    heard = asyncio.Event()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        call = group.create_task(
            chat.complete(HI, [], PLAIN, lambda text: heard.set() if text == "hel" else None, None)
        )
        await heard.wait()
        assert not call.done()
        call.cancel()


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"content_type": "application/json"}, id="under another content type"),
        pytest.param({"at_end": "stay"}, id="on a connection that stays open"),
    ],
)
async def test_a_stream_is_one_whatever_is_around_it(chat: OpenAIChat, provider: Any, how: dict[str, Any]) -> None:
    provider.stream(
        b"\n", *CHAT, at_end=how.get("at_end", "close"), content_type=how.get("content_type", "text/event-stream")
    )
    assert (await say(chat))[:2] == ("hello", 7)


async def test_a_connection_is_used_again_after_a_stream(chat: OpenAIChat, provider: Any) -> None:
    for _ in range(3):
        provider.stream(*CHAT)
        await chat.complete(HI, [], PLAIN, None, None)
    assert len({seen.peer for seen in provider.seen}) == 1


async def test_a_compressed_stream_is_read(chat: OpenAIChat, provider: Any) -> None:
    provider.stream(gzip.compress(b"".join(CHAT)), headers={"Content-Encoding": "gzip"})
    assert (await say(chat))[0] == "hello"


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
async def test_a_server_that_does_not_stream_is_read_too(chat: OpenAIChat, provider: Any, content_type: str) -> None:
    provider.stream(json.dumps(WHOLE).encode(), content_type=content_type)
    assert await say(chat) == ("hello", 7, [])


@pytest.mark.parametrize("at_end", ["close", "break off"])
async def test_a_stream_that_ends_in_the_middle_has_broken_off(
    chat: OpenAIChat, claude: AnthropicMessages, provider: Any, at_end: str
) -> None:
    for client, pieces in ((chat, CHAT[:2]), (claude, MESSAGE[:4]), (chat, [chunk("hel"), b"data: {"]), (chat, [b""])):
        provider.stream(*pieces, at_end=at_end)
        with pytest.raises(
            UnreachableProviderError, match=r"lost the connection to .*: the reply broke off in the m"
        ) as r:
            await client.complete(HI, [], PLAIN, None, None)
        assert r.value.retryable


async def test_an_answer_that_was_finished_is_not_asked_for_again(chat: OpenAIChat, provider: Any) -> None:
    provider.stream(*CHAT[:3], at_end="break off")
    assert (await say(chat))[0] == "hello"


async def test_a_failure_in_mid_stream_is_a_failure(chat: OpenAIChat, claude: AnthropicMessages, provider: Any) -> None:
    provider.stream(
        chunk("hel"), event({"error": {"message": f"busy, {KEY}", "code": 429}}), headers={"Retry-After": "3"}
    )
    with pytest.raises(TransientProviderError, match=r"^busy, \*\*\*$") as raised:
        await chat.complete(HI, [], PLAIN, None, None)
    assert (raised.value.status_code, raised.value.retry_after) == (429, 3)
    provider.stream(
        *MESSAGE[:3], event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    )
    with pytest.raises(TransientProviderError, match="Overloaded") as raised:
        await claude.complete(HI, [], PLAIN, None, None)
    assert raised.value.status_code == 529


async def test_a_stream_of_something_else_is_a_broken_reply(chat: OpenAIChat, provider: Any) -> None:
    for pieces in ([b"data: hello\n\n", DONE], [b"<html>"]):
        provider.stream(*pieces)
        with pytest.raises(BrokenReplyError, match="something that is not JSON"):
            await chat.complete(HI, [], PLAIN, None, None)


async def test_a_stream_without_an_end_is_not_read_to_it(provider: Any, build_llm: BuildLLM) -> None:
    small = HTTPPool(max_reply=1000)
    spec = build_llm(parameters={"model": "m", "baseUrl": provider.url}).spec
    provider.stream(*[chunk("x" * 100)] * 20, at_end="stay")
    with pytest.raises(UnreachableProviderError, match="the reply is over 1000 bytes"):
        await OpenAIChat(spec, KEY, small).complete(HI, [], PLAIN, None, None)
    await small.aclose()


async def test_a_compressed_stream_is_measured_by_what_it_becomes(provider: Any, build_llm: BuildLLM) -> None:
    small = HTTPPool(max_reply=100_000)
    spec = build_llm(parameters={"model": "m", "baseUrl": provider.url}).spec
    packed = gzip.compress(chunk("x" * 10_000_000))
    assert len(packed) < 20_000
    provider.stream(packed, headers={"Content-Encoding": "gzip"})
    with pytest.raises(UnreachableProviderError, match="the reply is over 100000 bytes"):
        await OpenAIChat(spec, KEY, small).complete(HI, [], PLAIN, None, None)
    await small.aclose()


async def test_a_stream_of_more_values_than_its_text_is_over_our_limits(
    chat: OpenAIChat, claude: AnthropicMessages, provider: Any
) -> None:
    lists = event({"choices": [{"delta": {"x": [[]] * 10_000}}]})
    provider.stream(*[lists] * 20, *CHAT)
    with pytest.raises(UnusableReplyError, match=r"over our limits: it holds more than 100,000 values$"):
        await chat.complete(HI, [], PLAIN, None, None)
    cited = event({"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": [[]]}})
    provider.stream(*MESSAGE[:3], *[cited] * 60_000, *MESSAGE[3:])
    with pytest.raises(UnusableReplyError, match=r"over our limits: it holds more than 100,000 values$"):
        await claude.complete(HI, [], PLAIN, None, None)


async def test_one_event_of_too_many_lists_is_not_even_parsed(chat: OpenAIChat, provider: Any) -> None:
    provider.stream(b'data: {"x": [' + b"[]," * 300_000 + b"[]]}\n\n", DONE)
    with pytest.raises(UnusableReplyError, match=r"over our limits: it holds more than 250,000 objects and lists$"):
        await chat.complete(HI, [], PLAIN, None, None)


async def test_the_time_limit_is_for_the_whole_stream(provider: Any, pool: HTTPPool, build_llm: BuildLLM) -> None:
    spec = build_llm(parameters={"model": "m", "baseUrl": provider.url}, requestTimeoutSeconds=1).spec
    provider.stream(chunk("hel"), at_end="stay")
    with pytest.raises(UnreachableProviderError, match="did not answer within 1 s"):
        await OpenAIChat(spec, KEY, pool).complete(HI, [], PLAIN, None, None)


async def test_a_server_that_refuses_to_stream_is_asked_otherwise_and_only_once_to_find_out(
    chat: OpenAIChat, provider: Any
) -> None:
    provider.answer({"error": {"message": "Unrecognized request argument supplied: stream_options"}}, status=400)
    provider.stream(*CHAT)
    provider.stream(*CHAT)
    await chat.complete(HI, [], PLAIN, None, None)
    await chat.complete(HI, [], PLAIN, None, None)
    asked = [(seen.body.get("stream"), seen.body.get("stream_options")) for seen in provider.seen]
    assert asked == [(True, {"include_usage": True}), (True, None), (True, None)]
    provider.answer({"detail": [{"loc": ["body", "stream"], "msg": "Input should be false"}]}, status=422)
    provider.answer(WHOLE)
    provider.answer(WHOLE)
    assert await say(chat) == ("hello", 7, [])
    assert await say(chat) == ("hello", 7, [])
    assert [seen.body.get("stream") for seen in provider.seen[3:]] == [True, None, None]


async def test_a_request_that_is_refused_anyway_says_nothing_about_streams(
    claude: AnthropicMessages, provider: Any
) -> None:
    for _ in range(2):
        provider.answer({"error": {"message": "no streaming of thoughts"}}, status=400)
    with pytest.raises(RejectedRequestError, match="no streaming of thoughts"):
        await claude.complete(HI, [], PLAIN, None, None)
    provider.stream(*MESSAGE)
    assert (await say(claude))[2]
    assert [seen.body.get("stream") for seen in provider.seen] == [True, None, True]
