"""Our conversation <-> the Chat Completions API, as pure functions over plain JSON values.

Everything that a message holds goes out, and everything that the model says comes back: text beside tool calls,
parallel calls, argument text exactly as written. Fields of a reply that we do not model (``reasoning_content`` and the
like) are kept as ``provider_data`` and sent back to the same host with the tool calls that they belong to, because some
servers insist on them.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kubechain_common.api.v1alpha1.conversation import Message, MessageToolCall, ShownImage, ToolCallFunction
from kubechain_common.api.v1alpha1.llm import LLMParameters
from kubechain_common.messages import ResponseFormat, ToolDefinition
from kubechain_llm_gateway.protocols.dialect import Dialect
from kubechain_llm_gateway.protocols.structured_output import build_instruction, build_json_schema_format
from kubechain_llm_gateway.protocols.wire_ids import fit_id
from kubechain_llm_gateway.protocols.wire_images import shown_images
from kubechain_llm_gateway.protocols.wire_json import encode_text
from kubechain_llm_gateway.protocols.wire_usage import parse_openai_usage
from kubechain_llm_gateway.providers.base import CUT_CALL, CUT_TEXT, Completion
from kubechain_llm_gateway.providers.errors import BrokenReplyError, UnusableReplyError

_NAME = re.compile(r"[^\s<|\\/>]{1,64}")
_MAX_TOOL_NAME = 64
_MODELLED = frozenset({"role", "content", "tool_calls", "refusal", "annotations", "audio", "function_call"})
_MODELLED_CALL = frozenset({"id", "type", "function", "index"})
_SIGNED_BY_NOBODY = {"extra_content": {"google": {"thought_signature": "skip_thought_signature_validator"}}}
"""How Gemini wants the first of another model's tool calls to be marked."""
_CUT_OFF = {
    "length": CUT_CALL,
    "model_length": CUT_CALL,
    "content_filter": "the provider's content filter cut the answer off in the middle of a tool call",
    "error": "the provider failed in the middle of a tool call",
}
"""Finish reasons after which a call may not be what was meant; two of them are Mistral's."""
_NUMBERS = ("temperature", "top_p", "frequency_penalty", "presence_penalty")


def build_request(
    messages: Sequence[Message],
    tools: Sequence[ToolDefinition],
    parameters: LLMParameters,
    dialect: Dialect,
    response_format: ResponseFormat | None = None,
) -> dict[str, Any]:
    """The body of POST /chat/completions; a parameter that is not set is not in it."""
    model = parameters.model or ""
    body: dict[str, Any] = {"model": parameters.model, "messages": list(_build_messages(messages, dialect, model))}
    if tools:
        body["tools"] = [_build_tool(tool, dialect) for tool in tools]
    if parameters.max_tokens is not None:
        body[dialect.max_tokens_field] = parameters.max_tokens
    for name in _NUMBERS:
        value = getattr(parameters, name)
        if value is not None:
            body[name] = float(value)
    if parameters.top_k is not None:
        body["top_k"] = parameters.top_k
    if response_format is not None:
        _ask_for_json(body, response_format, dialect)
    return body


def _ask_for_json(body: dict[str, Any], wanted: ResponseFormat, dialect: Dialect) -> None:
    if dialect.takes_json_schema(body["model"] or "", "tools" in body):
        body["response_format"] = build_json_schema_format(wanted)
    else:
        body["messages"].insert(0, {"role": "system", "content": build_instruction(wanted)})


def _build_tool(tool: ToolDefinition, dialect: Dialect) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    schema = dialect.fit_tool_schema(tool.parameters or {"type": "object", "properties": {}})
    if schema is not None:
        function["parameters"] = schema
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _build_messages(messages: Sequence[Message], dialect: Dialect, model: str) -> Iterable[dict[str, Any]]:
    """The messages. Results of tools are text only here: their images follow as a message of the user, once all results
    are there.
    """
    images: list[ShownImage] = []
    for message in messages:
        if message.role != "tool" and images:
            yield _build_images(images)
            images = []
        yield _build_message(message, dialect, model)
        images += shown_images(message)
    if images:
        yield _build_images(images)


def _build_images(images: Sequence[ShownImage]) -> dict[str, Any]:
    text = {"type": "text", "text": "The images that the tools returned:"}
    urls = [f"data:{image.mime_type};base64,{image.data}" for image in images]
    return {"role": "user", "content": [text, *({"type": "image_url", "image_url": {"url": url}} for url in urls)]}


def _build_message(message: Message, dialect: Dialect, model: str) -> dict[str, Any]:
    if message.role == "tool":
        call_id = dialect.fit_call_id(message.tool_call_id or "")
        return {"role": "tool", "tool_call_id": call_id, "content": message.content}
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name and _NAME.fullmatch(message.name) and not dialect.mistral:
        wire["name"] = message.name
    if message.tool_calls:
        extras = _own_data(message, dialect)
        call_extras = _mapping(extras.get("toolCalls"))
        wire["content"] = message.content or None
        wire["tool_calls"] = [_build_call(c, _mapping(call_extras.get(c.id)), dialect) for c in message.tool_calls]
        wire = {**_mapping(extras.get("message")), **wire}
        if not call_extras and dialect.wants_signatures(model):
            wire["tool_calls"][0] |= _SIGNED_BY_NOBODY
    return wire


def _build_call(call: MessageToolCall, extras: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    function = {
        "name": fit_id(call.function.name, _MAX_TOOL_NAME),
        "arguments": dialect.fit_arguments(call.function.arguments),
    }
    return {**extras, "id": dialect.fit_call_id(call.id), "type": call.type or "function", "function": function}


def _own_data(message: Message, dialect: Dialect) -> Mapping[str, Any]:
    """What this very host gave us with the message."""
    data = message.provider_data or {}
    return data if data.get("provider") == "openai" and data.get("host") == dialect.host else {}


def _mapping(value: Any) -> Mapping[str, Any]:
    """``value``, should it be a mapping: provider_data may have been written by hand."""
    return value if isinstance(value, Mapping) else {}


def parse_reply(reply: Any, dialect: Dialect) -> Completion:
    """The completion in a reply.

    Raises:
        BrokenReplyError: it is no Chat Completions reply.
        UnusableReplyError: it says nothing.
    """
    choice = _first_choice(reply)
    stop_reason = str(choice.get("finish_reason") or "")
    wire = choice.get("message")
    if not isinstance(wire, Mapping):
        raise BrokenReplyError("the provider's reply has a choice without a message")
    content = _text_of(wire.get("content")) or _text_of(wire.get("refusal"))
    calls = list(_parse_calls(wire.get("tool_calls")))
    if not content.strip() and not calls:
        raise UnusableReplyError(_why_empty(stop_reason))
    if calls and stop_reason in _CUT_OFF:  # whoever runs a call that is cut off runs another one than was meant
        raise UnusableReplyError(_CUT_OFF[stop_reason])
    message = Message(
        role="assistant",
        content=content,
        tool_calls=[call for call, _ in calls] or None,
        provider_data=_keep_extras(wire, calls, dialect),
    )
    refused = not _text_of(wire.get("content")) and not calls
    return Completion(
        message,
        parse_openai_usage(reply.get("usage"), thoughts_beside=dialect.gemini),
        stop_reason,
        _why_incomplete(stop_reason, refused),
    )


def _first_choice(reply: Any) -> Mapping[str, Any]:
    choices = reply.get("choices") if isinstance(reply, Mapping) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise BrokenReplyError("the provider's reply holds no choices: is this a Chat Completions API?")
    return choices[0]


def _text_of(content: Any) -> str:
    """Content as text; some servers send it as a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(p["text"] for p in content if isinstance(p, Mapping) and isinstance(p.get("text"), str))
    return ""


def _parse_calls(wire_calls: Any) -> Iterable[tuple[MessageToolCall, dict[str, Any]]]:
    """The calls with their unmodelled fields; a missing or repeated id, which some servers send, is replaced."""
    seen: set[str] = set()
    for wire in wire_calls if isinstance(wire_calls, list) else []:
        function = wire.get("function") if isinstance(wire, Mapping) else None
        if not isinstance(function, Mapping) or not function.get("name"):
            raise BrokenReplyError("the provider's reply has a tool call without a function name")
        call_id = str(wire.get("id") or "")
        if not call_id or call_id in seen:
            call_id = f"call_{uuid.uuid4().hex[:24]}"
        seen.add(call_id)
        arguments = function.get("arguments")
        text = arguments if isinstance(arguments, str) else encode_text(arguments if arguments is not None else {})
        call = MessageToolCall(id=call_id, function=ToolCallFunction(name=str(function["name"]), arguments=text))
        yield call, _unmodelled(wire, _MODELLED_CALL)


def _keep_extras(
    wire: Mapping[str, Any], calls: Sequence[tuple[MessageToolCall, dict[str, Any]]], dialect: Dialect
) -> dict[str, Any] | None:
    if not calls:  # nothing goes on from a final answer, and some servers refuse their own reasoning there
        return None
    message_extras = _unmodelled(wire, _MODELLED)
    call_extras = {call.id: extras for call, extras in calls if extras}
    if not message_extras and not call_extras:
        return None
    data: dict[str, Any] = {"provider": "openai", "host": dialect.host}
    if message_extras:
        data["message"] = message_extras
    if call_extras:
        data["toolCalls"] = call_extras
    return data


def _unmodelled(wire: Mapping[str, Any], modelled: frozenset[str]) -> dict[str, Any]:
    return {k: v for k, v in wire.items() if k not in modelled and v not in (None, "", [], {})}


def _why_empty(stop_reason: str) -> str:
    match stop_reason:
        case "length":
            return "the model reached its token limit before it wrote any text: raise parameters.maxTokens"
        case "content_filter":
            return "the provider's content filter withheld the answer"
        case _:
            return f"the model answered with neither text nor tool calls (finish_reason {stop_reason or 'not given'})"


def _why_incomplete(stop_reason: str, refused: bool) -> str:
    if refused:
        return "the model refused to answer"
    match stop_reason:
        case "length":
            return CUT_TEXT
        case "content_filter":
            return "the provider's content filter cut it off"
        case _:
            return ""
