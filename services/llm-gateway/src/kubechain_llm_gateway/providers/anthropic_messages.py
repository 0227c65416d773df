"""Anthropic and servers that speak its Messages API, through the anthropic SDK."""

from __future__ import annotations

from collections.abc import Sequence

from anthropic import AnthropicError, APIStatusError, AsyncAnthropic
from pydantic import ValidationError

from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.llm import LLMParameters, LLMSpec
from kubechain_common.messages import ToolDefinition
from kubechain_llm_gateway.anthropic_mapping import build_request, parse_reply
from kubechain_llm_gateway.anthropic_stream import MessageAccumulator
from kubechain_llm_gateway.providers.base import VALIDATION_TIMEOUT, Completion, OnDelta, Validation, timeout_of
from kubechain_llm_gateway.providers.errors import ProviderError, over_our_limits
from kubechain_llm_gateway.providers.sdk_call import SDKCaller
from kubechain_llm_gateway.providers.streamed_call import StreamedCall
from kubechain_llm_gateway.providers.transport import HTTPPool

OFFICIAL_URL = "https://api.anthropic.com"

API_VERSION = "2023-06-01"
"""Pinned: the SDK's own (2026-10-21) refuses temperature, top_p and top_k, which an LLM may set."""

_NO_MODELS_ENDPOINT = frozenset({404, 405, 501})


class AnthropicMessages:
    """One Anthropic key."""

    def __init__(self, spec: LLMSpec, api_key: str, pool: HTTPPool) -> None:
        base_url = (spec.parameters and spec.parameters.base_url) or OFFICIAL_URL
        self._timeout = timeout_of(spec)
        self._client = AsyncAnthropic(
            api_key=api_key,
            # The SDK adds /v1 itself; a base URL written with it means the same.
            base_url=base_url.rstrip("/").removesuffix("/v1"),
            max_retries=0,
            default_headers=_build_headers(spec, api_key),
            http_client=pool.build_client(),
            open_telemetry=False,  # the gateway has its own span for a call
        )
        self._caller = SDKCaller(self._client, status_error=APIStatusError, sdk_error=AnthropicError, secret=api_key)
        self._messages = StreamedCall(self._caller, "/v1/messages", MessageAccumulator)

    async def validate(self) -> Validation:
        try:
            await self._caller.get("/v1/models", {"limit": 1}, VALIDATION_TIMEOUT)
        except ProviderError as error:
            if error.status_code in _NO_MODELS_ENDPOINT:
                return Validation(
                    "Anthropic-compatible server is reachable; it lists no models, so the API key could not be checked"
                )
            raise
        return Validation("Anthropic API key validated successfully")

    async def complete(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDefinition],
        parameters: LLMParameters,
        on_delta: OnDelta | None = None,
    ) -> Completion:
        reply = await self._messages.ask(build_request(messages, tools, parameters), self._timeout, on_delta)
        try:
            return parse_reply(reply)
        except ValidationError as error:
            raise over_our_limits(error) from None


def _build_headers(spec: LLMSpec, api_key: str) -> dict[str, str]:
    # The SDK sends the key as a bearer token only; proxies and compatible servers of the older API version read x-api-
    # key.
    headers = {"anthropic-version": API_VERSION, "x-api-key": api_key}
    beta = spec.anthropic and spec.anthropic.anthropic_beta_header
    return {**headers, "anthropic-beta": beta} if beta else headers
