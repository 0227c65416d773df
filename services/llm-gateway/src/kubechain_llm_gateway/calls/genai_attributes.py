"""OpenTelemetry's GenAI semantic conventions (of 2026, status Development) for one call: attributes as pure functions.

https://opentelemetry.io/docs/specs/semconv/gen-ai/. What is said in the conversation is in them only if somebody has
switched that on (``captures_messages``): it may be personal, and it is long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.llm import LLMParameters
from kubechain_common.api.v1alpha1.status import shorten
from kubechain_common.telemetry.tracing import AttributeValue
from kubechain_llm_gateway.protocols.wire_json import UNPARSABLE, encode_text, parse_arguments
from kubechain_llm_gateway.providers.base import Completion
from kubechain_llm_gateway.providers.wire_target import Target, target_of

OPERATION = "chat"

_NAMES = {
    Target.OPENAI: "openai",
    Target.COMPATIBLE: "openai",
    Target.AZURE: "azure.ai.openai",
    Target.ANTHROPIC: "anthropic",
    Target.MISTRAL: "mistral_ai",
    Target.GOOGLE: "gcp.gemini",
    Target.VERTEX_GEMINI: "gcp.vertex_ai",
    Target.VERTEX_CLAUDE: "gcp.vertex_ai",
}
_HOSTS = {
    "openai": "api.openai.com",
    "anthropic": "api.anthropic.com",
    "mistral": "api.mistral.ai",
    "google": "generativelanguage.googleapis.com",
}
_COUNTS = {
    "gen_ai.usage.cache_read.input_tokens": "cached_input_tokens",
    "gen_ai.usage.cache_creation.input_tokens": "cache_write_tokens",
    "gen_ai.usage.reasoning.output_tokens": "reasoning_tokens",
}
_MAX_TEXT = 16 * 1024
"""Characters of one message in an attribute."""

_ON = frozenset({"true", "1", "yes", "on", "span_only", "span_and_event"})
_CAPTURE_VARIABLES = (
    "KUBECHAIN_CAPTURE_MESSAGE_CONTENT",
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
)


def captures_messages(environment: Mapping[str, str]) -> bool:
    """Whether spans are to hold the conversation."""
    return any(environment.get(name, "").strip().lower() in _ON for name in _CAPTURE_VARIABLES)


def provider_name(llm: LLM) -> str:
    """The provider in the words of the conventions."""
    return _NAMES[target_of(llm.spec)]


def server_of(llm: LLM) -> tuple[str, int] | None:
    """(host, port) of the provider; None where its own module alone knows it, or Python takes the URL for none."""
    base_url = llm.spec.parameters and llm.spec.parameters.base_url
    if not base_url:
        host = _HOSTS.get(llm.spec.provider)
        return (host, 443) if host else None
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    return (host, port or (443 if parts.scheme == "https" else 80)) if host else None


def build_request_attributes(llm: LLM) -> dict[str, AttributeValue]:
    """What is known before the call."""
    parameters = llm.spec.parameters or LLMParameters()
    attributes: dict[str, AttributeValue] = {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": provider_name(llm),
        "gen_ai.request.model": parameters.model or "",
        "kubechain.llm.name": llm.name,
        "k8s.namespace.name": llm.namespace,
    }
    if parameters.max_tokens is not None:
        attributes["gen_ai.request.max_tokens"] = parameters.max_tokens
    for name in ("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty"):
        value = getattr(parameters, name)
        if value is not None:
            attributes[f"gen_ai.request.{name}"] = float(value)
    server = server_of(llm)
    if server is not None:
        attributes["server.address"], attributes["server.port"] = server
    return attributes


def build_response_attributes(completion: Completion) -> dict[str, AttributeValue]:
    """What the answer says about itself."""
    attributes: dict[str, AttributeValue] = {
        "gen_ai.usage.input_tokens": completion.usage.input_tokens,
        "gen_ai.usage.output_tokens": completion.usage.output_tokens,
    }
    for name, field in _COUNTS.items():
        count = getattr(completion.usage, field)
        if count is not None:
            attributes[name] = count
    if completion.stop_reason:
        attributes["gen_ai.response.finish_reasons"] = (completion.stop_reason,)
    if completion.response_id:
        attributes["gen_ai.response.id"] = completion.response_id
    if completion.response_model:
        attributes["gen_ai.response.model"] = completion.response_model
    return attributes


def build_input_attributes(messages: Sequence[Message]) -> dict[str, AttributeValue]:
    """The conversation, as JSON: attributes hold no structures."""
    return {"gen_ai.input.messages": encode_text([_build_message(message) for message in messages])}


def build_output_attributes(completion: Completion) -> dict[str, AttributeValue]:
    """The answer, in the same form."""
    message = {**_build_message(completion.message), "finish_reason": completion.stop_reason}
    return {"gen_ai.output.messages": encode_text([message])}


def _build_message(message: Message) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    text = shorten(message.content, _MAX_TEXT)
    if message.role == "tool":
        parts.append({"type": "tool_call_response", "id": message.tool_call_id or "", "response": text})
    elif text:
        parts.append({"type": "text", "content": text})
    for call in message.tool_calls or ():
        arguments = shorten(call.function.arguments, _MAX_TEXT)
        parsed = parse_arguments(arguments)
        given = arguments if UNPARSABLE in parsed else parsed
        parts.append({"type": "tool_call", "id": call.id, "name": call.function.name, "arguments": given})
    return {"role": message.role, "parts": parts}
