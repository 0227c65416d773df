"""The providers' published request schemas, and what each of them adds or leaves out.

The types are those of the SDKs, which are generated from the providers' OpenAPI documents. Pydantic ignores a key that
a TypedDict does not know, so the validated value is compared with what came in: a key too many is found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from pydantic import TypeAdapter

_CHAT: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsNonStreaming)
_CHAT_STREAM: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsStreaming)
_MESSAGES: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsNonStreaming)
_MESSAGES_STREAM: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsStreaming)

_SAMPLING_OF_2023_06_01 = {"temperature": (0, 1), "top_p": (0, 1), "top_k": (0, 10**9)}
"""What the Messages API of the version that we pin takes, and the SDK's newer one does not."""


def check_openai(body: dict[str, Any]) -> None:
    """Chat Completions as OpenAI documents it."""
    _check(_CHAT_STREAM if body.get("stream") else _CHAT, body)
    for call_id in _call_ids(body):
        assert len(call_id) <= 40, f"string too long. Expected a string with maximum length 40: {call_id}"


def check_compatible(body: dict[str, Any]) -> None:
    """A server like vLLM or Ollama: knows ``top_k``, does not know ``max_completion_tokens``, parses arguments."""
    assert "max_completion_tokens" not in body
    _check(_CHAT_STREAM if body.get("stream") else _CHAT, _without(body, "top_k"))
    _check_arguments(body)


def check_mistral(body: dict[str, Any]) -> None:
    """https://docs.mistral.ai/api: closed objects, ids of nine letters or digits."""
    known = "model messages temperature top_p max_tokens stream stop random_seed response_format tools tool_choice"
    known += " presence_penalty frequency_penalty n safe_prompt parallel_tool_calls prompt_mode"
    assert body.keys() <= set(known.split()), "Extra inputs are not permitted"
    for message in body["messages"]:
        assert message.keys() <= {"role", "content", "tool_calls", "tool_call_id", "prefix"}
        assert message.get("content") or message.get("tool_calls") or message["role"] in ("user", "tool", "system")
    for call_id in _call_ids(body):
        assert re.fullmatch("[a-zA-Z0-9]{9}", call_id), f"Tool call id was {call_id}"
    assert 0 <= body.get("temperature", 0) <= 1.5
    _check(_CHAT_STREAM if body.get("stream") else _CHAT, _without(body, "random_seed"))
    _check_arguments(body)


def check_gemini(body: dict[str, Any]) -> None:
    """Gemini's layer, which knows no more fields than this and no object without properties."""
    known = "model messages temperature top_p max_tokens stream stream_options stop response_format tools tool_choice n"
    assert body.keys() <= set(known.split()), f'Unknown name "{body.keys() - set(known.split())}": Cannot find field.'
    _check_gemini(body)


def check_vertex_gemini(body: dict[str, Any]) -> None:
    """The same on Vertex AI, with penalties and a publisher before the model."""
    assert "/" in body["model"], "Malformed publisher model"
    _check_gemini(_without(body, "frequency_penalty", "presence_penalty"))


def _check_gemini(body: dict[str, Any]) -> None:
    for tool in body.get("tools", ()):
        assert tool["function"].get("parameters", {"properties": True}).get("properties"), "should be non-empty"
    messages = [
        {**m, "tool_calls": [_without(c, "extra_content") for c in m["tool_calls"]]} if "tool_calls" in m else m
        for m in body["messages"]
    ]
    _check(_CHAT_STREAM if body.get("stream") else _CHAT, {**body, "messages": messages})
    _check_arguments(body)


def check_anthropic(body: dict[str, Any]) -> None:
    """Messages of version 2023-06-01, with the rules about turns that no type can say."""
    for name, (least, most) in _SAMPLING_OF_2023_06_01.items():
        assert least <= body.get(name, least) <= most, name
    _check(_MESSAGES_STREAM if body.get("stream") else _MESSAGES, _without(body, *_SAMPLING_OF_2023_06_01))
    _check_turns(body["messages"])


def check_vertex_claude(body: dict[str, Any]) -> None:
    """The same on Vertex AI, where the path names the model."""
    assert body["anthropic_version"] == "vertex-2023-10-16"
    assert "model" not in body
    check_anthropic({"model": "in the path", **_without(body, "anthropic_version")})


def _check(schema: TypeAdapter[Any], body: Mapping[str, Any]) -> None:
    assert _exhaust(schema.validate_python(body)) == body


def _exhaust(value: Any) -> Any:
    """The value with its iterables read to their end, which is when pydantic validates their items."""
    if isinstance(value, Mapping):
        return {key: _exhaust(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_exhaust(item) for item in value]
    return value


def _without(body: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in names}


def _call_ids(body: Mapping[str, Any]) -> list[str]:
    made = [call["id"] for message in body["messages"] for call in message.get("tool_calls") or ()]
    return made + [message["tool_call_id"] for message in body["messages"] if message["role"] == "tool"]


def _check_arguments(body: Mapping[str, Any]) -> None:
    for message in body["messages"]:
        for call in message.get("tool_calls") or ():
            assert isinstance(json.loads(call["function"]["arguments"]), dict)


def _check_turns(turns: list[dict[str, Any]]) -> None:
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2) + ["user"] * (len(turns) % 2)
    waiting: set[str] = set()
    for turn in turns:
        results = {block["tool_use_id"] for block in turn["content"] if block["type"] == "tool_result"}
        assert results == waiting, "tool_use ids were found without tool_result blocks immediately after"
        kinds = [block["type"] for block in turn["content"]]
        assert "tool_result" not in kinds[len(results) :], "tool_result blocks must come first"
        waiting = {block["id"] for block in turn["content"] if block["type"] == "tool_use"}
        assert all(block["text"].strip() for block in turn["content"] if block["type"] == "text")
