"""What every provider with the Messages API shares: one client of the anthropic SDK and one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anthropic import AnthropicError, APIStatusError, AsyncAnthropic

from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.llm import LLMParameters, LLMSpec
from kubechain_common.messages import ResponseFormat, ToolDefinition
from kubechain_llm_gateway.protocols.anthropic_mapping import build_request, parse_reply
from kubechain_llm_gateway.protocols.anthropic_stream import MessageAccumulator
from kubechain_llm_gateway.providers.base import Completion, Tokens
from kubechain_llm_gateway.providers.sdk_call import SDKCaller
from kubechain_llm_gateway.providers.sdk_provider import SDKProvider
from kubechain_llm_gateway.providers.streamed_call import StreamedCall
from kubechain_llm_gateway.providers.transport import HTTPPool


class MessagesAPI(SDKProvider):
    """A client with one key of one host; ``cached`` and ``takes_schema`` as in ``anthropic_mapping.build_request``."""

    def __init__(
        self,
        spec: LLMSpec,
        pool: HTTPPool,
        *,
        base_url: str,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        tokens: Tokens | None = None,
        path: str = "/v1/messages",
        stream_path: str | None = None,
        cached: bool = False,
        takes_schema: bool = False,
    ) -> None:
        self._cached = cached
        self._takes_schema = takes_schema
        client = AsyncAnthropic(
            api_key=api_key or "",
            base_url=base_url,
            max_retries=0,
            default_headers=headers,
            http_client=pool.build_client(),
            open_telemetry=False,  # the gateway has its own span for a call
        )
        caller = SDKCaller(client, status_error=APIStatusError, sdk_error=AnthropicError, secret=api_key, tokens=tokens)
        super().__init__(spec, caller, StreamedCall(caller, path, MessageAccumulator, stream_path=stream_path))

    def _build_body(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDefinition],
        parameters: LLMParameters,
        response_format: ResponseFormat | None,
    ) -> dict[str, Any]:
        return build_request(
            messages, tools, parameters, response_format, cached=self._cached, takes_schema=self._takes_schema
        )

    def _parse(self, reply: Any) -> Completion:
        return parse_reply(reply)
