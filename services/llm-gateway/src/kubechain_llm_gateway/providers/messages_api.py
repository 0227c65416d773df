"""What every provider with the Messages API shares: one client of the anthropic SDK and one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anthropic import AnthropicError, APIStatusError, AsyncAnthropic
from pydantic import ValidationError

from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.llm import LLMParameters, LLMSpec
from kubechain_common.messages import ResponseFormat, ToolDefinition
from kubechain_llm_gateway.anthropic_mapping import build_request, parse_reply
from kubechain_llm_gateway.anthropic_stream import MessageAccumulator
from kubechain_llm_gateway.providers.base import Completion, OnDelta, Tokens, identify, timeout_of
from kubechain_llm_gateway.providers.errors import over_our_limits
from kubechain_llm_gateway.providers.sdk_call import SDKCaller
from kubechain_llm_gateway.providers.streamed_call import StreamedCall
from kubechain_llm_gateway.providers.transport import HTTPPool


class MessagesAPI:
    """One key of one host; ``cached`` and ``takes_schema`` as in ``anthropic_mapping.build_request``."""

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
        self._timeout = timeout_of(spec)
        client = AsyncAnthropic(
            api_key=api_key or "",
            base_url=base_url,
            max_retries=0,
            default_headers=headers,
            http_client=pool.build_client(),
            open_telemetry=False,  # the gateway has its own span for a call
        )
        self._caller = SDKCaller(
            client, status_error=APIStatusError, sdk_error=AnthropicError, secret=api_key, tokens=tokens
        )
        self._messages = StreamedCall(self._caller, path, MessageAccumulator, stream_path=stream_path)

    async def complete(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDefinition],
        parameters: LLMParameters,
        on_delta: OnDelta | None = None,
        response_format: ResponseFormat | None = None,
    ) -> Completion:
        body = self._build_body(messages, tools, parameters, response_format)
        reply = await self._messages.ask(body, self._timeout, on_delta)
        try:
            return identify(parse_reply(reply), reply)
        except ValidationError as error:
            raise over_our_limits(error) from None

    def _build_body(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDefinition],
        parameters: LLMParameters,
        response_format: ResponseFormat | None,
    ) -> dict[str, Any]:
        """What is sent; a host that wants it otherwise changes it."""
        return build_request(
            messages, tools, parameters, response_format, cached=self._cached, takes_schema=self._takes_schema
        )
