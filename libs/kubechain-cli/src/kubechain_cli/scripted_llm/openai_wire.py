"""OpenAI chat completions: https://platform.openai.com/docs/api-reference/chat

Parses what a client sends into the types of a script and renders a script's reply; no state, no I/O.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from kubechain_cli.scripted_llm.errors import RefusedError
from kubechain_cli.scripted_llm.script import OWNER, ChatMessage, Reply, ToolCall, ToolSpec, Usage

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_ERRORS = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "permission_denied"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


def parse_request(body: dict[str, Any]) -> tuple[list[ChatMessage], list[ToolSpec]]:
    """The conversation and the tools; raises ``RefusedError`` (400) when the body is none of the protocol."""
    try:
        messages = [_parse_message(message) for message in body["messages"]]
        tools = [_parse_tool(tool) for tool in body.get("tools") or ()]
    except (KeyError, TypeError, AttributeError) as error:
        raise RefusedError(400, f"Invalid request: {error!r} in messages or tools") from error
    return messages, tools


def _parse_message(raw: dict[str, Any]) -> ChatMessage:
    calls = tuple(
        ToolCall(id=call["id"], name=call["function"]["name"], arguments=call["function"]["arguments"])
        for call in raw.get("tool_calls") or ()
    )
    role: Any = _ROLES[raw["role"]]
    return ChatMessage(role, _text(raw.get("content")), calls, raw["tool_call_id"] if role == "tool" else "")


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part["text"] for part in content if part["type"] == "text")


def _parse_tool(raw: dict[str, Any]) -> ToolSpec:
    function = raw["function"]
    return ToolSpec(function["name"], function.get("description") or "", function.get("parameters") or {})


def render_reply(identity: str, model: str, reply: Reply, usage: Usage) -> bytes:
    """A whole ``chat.completion``."""
    choice = {"message": _render_message(reply), **_choice(_finish_reason(reply))}
    envelope = _envelope(identity, model, "chat.completion")
    return orjson.dumps({**envelope, "choices": [choice], "usage": _render_usage(usage)})


def render_stream(identity: str, model: str, reply: Reply, usage: Usage, body: dict[str, Any]) -> Iterator[bytes]:
    """The same answer as server-sent events; usage comes last and only when ``stream_options`` asks for it."""
    envelope = _envelope(identity, model, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return _event({**envelope, "choices": [{"delta": delta, **_choice(finish)}]})

    yield chunk({"role": "assistant", "content": "" if not reply.tool_calls else None})
    for word in split_words(reply.text):
        yield chunk({"content": word})
    for index, call in enumerate(reply.tool_calls):
        function = {"name": call.name, "arguments": ""}
        yield chunk({"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": function}]})
        yield chunk({"tool_calls": [{"index": index, "function": {"arguments": call.arguments}}]})
    yield chunk({}, _finish_reason(reply))
    if (body.get("stream_options") or {}).get("include_usage"):
        yield _event({**envelope, "choices": [], "usage": _render_usage(usage)})
    yield b"data: [DONE]\n\n"


def split_words(text: str) -> list[str]:
    """The text cut after each space, so that joining the pieces gives it back."""
    pieces = text.split(" ")
    return [piece + " " for piece in pieces[:-1]] + [piece for piece in pieces[-1:] if piece]


def render_error(status: int, message: str) -> bytes:
    """The error object of the API."""
    kind, code = _ERRORS.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def render_model(model: str) -> dict[str, Any]:
    """One entry of ``GET /v1/models``."""
    return {"id": model, "object": "model", "created": 0, "owned_by": OWNER}


def render_models(models: Sequence[str]) -> bytes:
    """The answer to ``GET /v1/models``."""
    return orjson.dumps({"object": "list", "data": [render_model(model) for model in models]})


def _envelope(identity: str, model: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{identity}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": OWNER,
    }


def _choice(finish: str | None) -> dict[str, Any]:
    return {"index": 0, "logprobs": None, "finish_reason": finish}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


def _finish_reason(reply: Reply) -> str:
    return "length" if reply.cut else "tool_calls" if reply.tool_calls else "stop"


def _render_message(reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
    if reply.tool_calls:
        message["content"] = reply.text or None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in reply.tool_calls
        ]
    return message


def _render_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
