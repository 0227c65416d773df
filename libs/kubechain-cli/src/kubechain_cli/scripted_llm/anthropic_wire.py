"""Anthropic messages: https://docs.anthropic.com/en/api/messages

Parses what a client sends into the types of a script and renders a script's reply; no state, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from kubechain_cli.scripted_llm.errors import RefusedError
from kubechain_cli.scripted_llm.openai_wire import split_words
from kubechain_cli.scripted_llm.script import ChatMessage, Reply, Role, ToolCall, ToolSpec, Usage

_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def parse_request(body: dict[str, Any]) -> tuple[list[ChatMessage], list[ToolSpec]]:
    """The conversation and the tools; raises ``RefusedError`` (400) when the body is none of the protocol."""
    try:
        if not isinstance(body.get("max_tokens"), int):
            raise RefusedError(400, "max_tokens: Field required")
        messages = [ChatMessage("system", _text(body["system"]))] if body.get("system") else []
        for raw in body["messages"]:
            messages.extend(_parse_message(raw))
        tools = [_parse_tool(tool) for tool in body.get("tools") or ()]
    except (KeyError, TypeError, AttributeError) as error:
        raise RefusedError(400, f"Invalid request: {error!r} in messages or tools") from error
    return messages, tools


def _parse_message(raw: dict[str, Any]) -> Iterator[ChatMessage]:
    role, content = raw["role"], raw["content"]
    if role not in ("user", "assistant"):
        raise RefusedError(400, f"messages: Input should be 'user' or 'assistant', not {role!r}")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for block in blocks:
        if block["type"] == "tool_result":
            yield ChatMessage("tool", _text(block.get("content")), tool_call_id=block["tool_use_id"])
    said = [block for block in blocks if block["type"] != "tool_result"]
    if said:
        yield _parse_blocks(role, said)


def _parse_blocks(role: Role, blocks: Sequence[dict[str, Any]]) -> ChatMessage:
    calls = tuple(
        ToolCall(id=block["id"], name=block["name"], arguments=orjson.dumps(block["input"]).decode())
        for block in blocks
        if block["type"] == "tool_use"
    )
    return ChatMessage(role, _text(list(blocks)), calls)


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(block["text"] for block in content if block["type"] == "text")


def _parse_tool(raw: dict[str, Any]) -> ToolSpec:
    return ToolSpec(raw["name"], raw.get("description") or "", raw["input_schema"])


def render_reply(identity: str, model: str, reply: Reply, usage: Usage) -> bytes:
    """A whole ``message``."""
    return orjson.dumps(_render_message(identity, model, _render_blocks(reply), _stop_reason(reply), usage))


def render_stream(identity: str, model: str, reply: Reply, usage: Usage, body: dict[str, Any]) -> Iterator[bytes]:
    """The same answer as server-sent events."""
    start = _render_message(identity, model, [], None, Usage(usage.input_tokens, 1))
    yield _event("message_start", message=start)
    for index, block in enumerate(_render_blocks(reply)):
        yield from _stream_block(index, block)
    delta = {"stop_reason": _stop_reason(reply), "stop_sequence": None}
    yield _event("message_delta", delta=delta, usage={"output_tokens": usage.output_tokens})
    yield _event("message_stop")


def _stream_block(index: int, block: dict[str, Any]) -> Iterator[bytes]:
    deltas: list[dict[str, Any]]
    if block["type"] == "text":
        deltas = [{"type": "text_delta", "text": word} for word in split_words(block["text"])]
        block = {**block, "text": ""}
    else:
        deltas = [{"type": "input_json_delta", "partial_json": orjson.dumps(block["input"]).decode()}]
        block = {**block, "input": {}}
    yield _event("content_block_start", index=index, content_block=block)
    for delta in deltas:
        yield _event("content_block_delta", index=index, delta=delta)
    yield _event("content_block_stop", index=index)


def render_error(status: int, message: str) -> bytes:
    """The error object of the API."""
    return orjson.dumps({"type": "error", "error": {"type": _ERRORS.get(status, "api_error"), "message": message}})


def render_model(model: str) -> dict[str, Any]:
    """One entry of ``GET /v1/models``."""
    return {
        "type": "model",
        "id": model,
        "display_name": f"{model} (scripted stand-in, not an LLM)",
        "created_at": "1970-01-01T00:00:00Z",
    }


def render_models(models: Sequence[str]) -> bytes:
    """The answer to ``GET /v1/models``, always a single page."""
    data = [render_model(model) for model in models]
    ends = {"first_id": models[0] if models else None, "last_id": models[-1] if models else None}
    return orjson.dumps({"data": data, "has_more": False, **ends})


def _render_message(
    identity: str, model: str, blocks: list[dict[str, Any]], stop_reason: str | None, usage: Usage
) -> dict[str, Any]:
    return {
        "id": f"msg_{identity}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": blocks,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
    }


def _render_blocks(reply: Reply) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
    calls = (
        {"type": "tool_use", "id": call.id, "name": call.name, "input": orjson.loads(call.arguments)}
        for call in reply.tool_calls
    )
    return [*blocks, *calls]


def _stop_reason(reply: Reply) -> str:
    return "max_tokens" if reply.cut else "tool_use" if reply.tool_calls else "end_turn"


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: ".encode() + orjson.dumps({"type": kind, **fields}) + b"\n\n"
