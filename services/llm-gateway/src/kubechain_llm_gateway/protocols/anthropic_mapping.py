"""Our conversation <-> the Messages API, as pure functions over plain JSON values.

The API wants user and assistant by turns: neighbours of one role become one message, so the results of parallel calls
arrive together, before any text. System messages, wherever they stand, are joined into the top-level ``system``. Empty
text blocks are refused by the API: an empty assistant message is left out, an empty user message says so.

Blocks that we do not model (thinking and its signature, citations) are kept in ``provider_data`` and sent back
untouched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubechain_common.api.v1alpha1.conversation import Message, MessageToolCall, ShownImage, ToolCallFunction
from kubechain_common.api.v1alpha1.llm import LLMParameters
from kubechain_common.messages import ResponseFormat, ToolDefinition
from kubechain_llm_gateway.protocols.structured_output import build_instruction, build_output_config
from kubechain_llm_gateway.protocols.wire_ids import fit_id
from kubechain_llm_gateway.protocols.wire_images import shown_images
from kubechain_llm_gateway.protocols.wire_json import UNPARSABLE, encode_text, parse_arguments
from kubechain_llm_gateway.protocols.wire_usage import parse_anthropic_usage
from kubechain_llm_gateway.providers.base import CUT_CALL, CUT_TEXT, Completion
from kubechain_llm_gateway.providers.errors import BrokenReplyError, UnusableReplyError

DEFAULT_MAX_TOKENS = 4096
"""Sent when parameters.maxTokens is absent, because the API requires a limit."""

EMPTY_USER_TEXT = "(empty message)"
_MAX_ID = 64
_CACHED: Mapping[str, Any] = {"cache_control": {"type": "ephemeral"}}
_CACHEABLE = frozenset({"text", "tool_result", "tool_use"})
_ERROR_PREFIX = "Error: "

_CUT_OFF = {
    "max_tokens": CUT_CALL,
    "model_context_window_exceeded": CUT_CALL,
    "refusal": "the model refused to go on in the middle of a tool call",
}
"""Stop reasons after which a call may not be what was meant."""

Block = dict[str, Any]


def build_request(
    messages: Sequence[Message],
    tools: Sequence[ToolDefinition],
    parameters: LLMParameters,
    response_format: ResponseFormat | None = None,
    *,
    cached: bool = False,
    takes_schema: bool = False,
) -> dict[str, Any]:
    """The body of POST /v1/messages; a parameter that is not set is not in it, max_tokens excepted.

    ``cached`` has the provider keep what was sent, for the next turn. ``takes_schema``: the model can be held to a
    schema; else it is asked in words.
    """
    turns = _build_turns(messages)
    body: dict[str, Any] = {
        "model": parameters.model,
        "max_tokens": parameters.max_tokens if parameters.max_tokens is not None else DEFAULT_MAX_TOKENS,
        "messages": turns,
    }
    system = [m.content for m in messages if m.role == "system" and m.content.strip()]
    output = build_output_config(response_format) if response_format and takes_schema else None
    if output:
        body["output_config"] = output
    elif response_format:
        system.append(build_instruction(response_format))
    if system:
        body["system"] = "\n\n".join(system)
    body.update(_build_tools(tools, turns))
    if parameters.temperature is not None:
        body["temperature"] = float(parameters.temperature)
    if parameters.top_p is not None:
        body["top_p"] = float(parameters.top_p)
    if parameters.top_k is not None:
        body["top_k"] = parameters.top_k
    if cached:
        _mark_for_cache(body)
    return body


def _mark_for_cache(body: dict[str, Any]) -> None:
    """Sets a breakpoint after the tools, after the system prompt, and after all that is said so far."""
    if body.get("tools"):
        body["tools"][-1].update(_CACHED)
    if "system" in body:
        body["system"] = [{**_text(body["system"]), **_CACHED}]
    if body["messages"]:
        content = body["messages"][-1]["content"]
        if content[-1]["type"] in _CACHEABLE:
            content[-1] = {**content[-1], **_CACHED}  # a copy: the block may be the conversation's own


def _build_tools(tools: Sequence[ToolDefinition], turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if tools:
        return {"tools": [_build_tool(tool) for tool in tools]}
    # A conversation with tool blocks is refused without definitions, though the Agent may have lost its tools since.
    used = {b["name"] for turn in turns for b in turn["content"] if b["type"] == "tool_use"}
    if not used:
        return {}
    return {"tools": [_build_tool(ToolDefinition(name=name)) for name in sorted(used)], "tool_choice": {"type": "none"}}


def _build_tool(tool: ToolDefinition) -> dict[str, Any]:
    wire: dict[str, Any] = {"name": tool.name, "input_schema": {"type": "object", **tool.parameters}}
    if tool.description:
        wire["description"] = tool.description
    return wire


def _build_turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _build_blocks(message)
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"].extend(blocks)
        else:
            turns.append({"role": role, "content": blocks})
    if turns and turns[0]["role"] == "assistant":  # the API wants the user to begin
        turns.insert(0, {"role": "user", "content": [_text(EMPTY_USER_TEXT)]})
    return turns


def _build_blocks(message: Message) -> list[Block]:
    match message.role:
        case "tool":
            return [_build_tool_result(message)]
        case "assistant":
            return _own_blocks(message) or _build_assistant_blocks(message)
        case _:
            return [_text(message.content if message.content.strip() else EMPTY_USER_TEXT)]


def _build_tool_result(message: Message) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": fit_id(message.tool_call_id or "", _MAX_ID)}
    images = [_build_image(image) for image in shown_images(message)]
    if images:
        block["content"] = [*([_text(message.content)] if message.content.strip() else []), *images]
    elif message.content:
        block["content"] = message.content
    if message.content.startswith(_ERROR_PREFIX):
        block["is_error"] = True
    return block


def _build_image(image: ShownImage) -> Block:
    return {"type": "image", "source": {"type": "base64", "media_type": image.mime_type, "data": image.data}}


def _build_assistant_blocks(message: Message) -> list[Block]:
    text = [_text(message.content)] if message.content.strip() else []
    return text + [_build_tool_use(call) for call in message.tool_calls or ()]


def _build_tool_use(call: MessageToolCall) -> Block:
    return {
        "type": "tool_use",
        "id": fit_id(call.id, _MAX_ID),
        "name": fit_id(call.function.name, _MAX_ID),
        "input": parse_arguments(call.function.arguments),
    }


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _own_blocks(message: Message) -> list[Block]:
    """The blocks that this provider itself gave us for the message, if they say more than we model."""
    data = message.provider_data or {}
    blocks = data.get("content") if data.get("provider") == "anthropic" else None
    return _without_blanks(blocks) if isinstance(blocks, list) and all(_is_block(b) for b in blocks) else []


def _without_blanks(blocks: Sequence[Block]) -> list[Block]:
    """The blocks without texts that say nothing: the API writes such blocks, and takes none."""
    return [block for block in blocks if block["type"] != "text" or str(block.get("text", "")).strip()]


def _is_block(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("type"), str)


def parse_reply(reply: Any) -> Completion:
    """The completion in a reply.

    Raises:
        BrokenReplyError: it is no Messages reply.
        UnusableReplyError: it says nothing.
    """
    content = reply.get("content") if isinstance(reply, Mapping) else None
    if not isinstance(content, list) or not all(_is_block(b) for b in content):
        raise BrokenReplyError("the provider's reply holds no content blocks: is this a Messages API?")
    blocks = [_without_defaults(block) for block in content]
    text = "".join(str(b.get("text", "")) for b in blocks if b["type"] == "text")
    calls = [_parse_tool_use(b) for b in blocks if b["type"] == "tool_use"]
    stop_reason = str(reply.get("stop_reason") or "")
    if not text.strip() and not calls:
        raise UnusableReplyError(_why_empty(stop_reason))
    if calls and stop_reason in _CUT_OFF:  # the last call's input is what was written of it by then, or empty
        raise UnusableReplyError(_CUT_OFF[stop_reason])
    message = Message(role="assistant", content=text, tool_calls=calls or None)
    told = _without_blanks(blocks)
    if _build_assistant_blocks(message) != told:
        message.provider_data = {"provider": "anthropic", "content": told}
    return Completion(message, parse_anthropic_usage(reply.get("usage")), stop_reason, _why_incomplete(stop_reason))


def _without_defaults(block: Mapping[str, Any]) -> Block:
    """The block without fields that say nothing, so that a plain one is recognised as such."""
    return {k: v for k, v in block.items() if v is not None and not (k == "caller" and v == {"type": "direct"})}


def _parse_tool_use(block: Mapping[str, Any]) -> MessageToolCall:
    if not block.get("id") or not block.get("name"):
        raise BrokenReplyError("the provider's reply has a tool call without an id or a name")
    function = ToolCallFunction(name=str(block["name"]), arguments=_read_arguments(block.get("input") or {}))
    return MessageToolCall(id=str(block["id"]), function=function)


def _read_arguments(given: Any) -> str:
    """The arguments as text. What is no JSON object stays as it was written, so that whoever would run the call refuses
    it.
    """
    if isinstance(given, Mapping) and given.keys() == {UNPARSABLE}:
        return str(given[UNPARSABLE])
    return encode_text(given)


def _why_empty(stop_reason: str) -> str:
    match stop_reason:
        case "max_tokens":
            return "the model reached its token limit before it wrote any text: raise parameters.maxTokens"
        case "refusal":
            return "the model refused to answer"
        case "model_context_window_exceeded":
            return "the conversation fills the model's context window: nothing is left for an answer"
        case _:
            return f"the model answered with neither text nor tool calls (stop_reason {stop_reason or 'not given'})"


def _why_incomplete(stop_reason: str) -> str:
    match stop_reason:
        case "max_tokens":
            return CUT_TEXT
        case "refusal":
            return "the model refused to go on"
        case "model_context_window_exceeded":
            return "the conversation fills the model's context window"
        case _:
            return ""
