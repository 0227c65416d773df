"""OpenAI and every server that speaks Chat Completions, through the openai SDK."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from openai import APIStatusError, AsyncOpenAI, OpenAIError, omit
from pydantic import ValidationError

from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.llm import LLMParameters, LLMSpec
from kubechain_common.messages import ToolDefinition
from kubechain_llm_gateway.openai_mapping import Dialect, build_request, parse_reply
from kubechain_llm_gateway.openai_stream import ChatAccumulator
from kubechain_llm_gateway.providers.base import VALIDATION_TIMEOUT, Completion, OnDelta, Validation, timeout_of
from kubechain_llm_gateway.providers.errors import KeyRefusedError, ProviderError, over_our_limits
from kubechain_llm_gateway.providers.sdk_call import SDKCaller
from kubechain_llm_gateway.providers.streamed_call import StreamedCall
from kubechain_llm_gateway.providers.transport import HTTPPool

OFFICIAL_URL = "https://api.openai.com/v1"
_NO_MODELS_ENDPOINT = frozenset({404, 405, 501})


class OpenAIChat:
    """One OpenAI key, or one compatible server."""

    def __init__(self, spec: LLMSpec, api_key: str | None, pool: HTTPPool) -> None:
        base_url = (spec.parameters and spec.parameters.base_url) or OFFICIAL_URL
        host = urlsplit(base_url).hostname or ""
        self._dialect = Dialect(host=host, official=host == "api.openai.com" or host.endswith(".api.openai.com"))
        self._keyless = api_key is None
        self._timeout = timeout_of(spec)
        self._client = AsyncOpenAI(
            api_key=api_key or "",
            base_url=base_url,
            max_retries=0,
            http_client=pool.build_client(),
            _enforce_credentials=False,
        )
        # Set after the constructor, which would fill what is absent from OPENAI_* variables of our own environment.
        self._client.admin_api_key = None
        self._client.organization = spec.openai.organization if spec.openai else None
        self._client.project = None
        self._caller = SDKCaller(
            self._client,
            status_error=APIStatusError,
            sdk_error=OpenAIError,
            secret=api_key,
            headers={"Authorization": omit} if self._keyless else None,
        )
        self._chat = StreamedCall(
            self._caller, "/chat/completions", ChatAccumulator, {"stream_options": {"include_usage": True}}
        )

    async def validate(self) -> Validation:
        try:
            await self._caller.get("/models", {}, VALIDATION_TIMEOUT)
        except ProviderError as error:
            if error.status_code in _NO_MODELS_ENDPOINT:
                return Validation(
                    "OpenAI-compatible server is reachable; it lists no models, so the API key could not be checked"
                )
            if isinstance(error, KeyRefusedError) and "missing scopes" in error.message.lower():
                return Validation(
                    "OpenAI API is reachable; the API key may not list models, so it could not be checked further"
                )
            raise
        if self._keyless:
            return Validation("OpenAI-compatible server is reachable; no API key is used")
        return Validation("OpenAI API key validated successfully")

    async def complete(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDefinition],
        parameters: LLMParameters,
        on_delta: OnDelta | None = None,
    ) -> Completion:
        body = build_request(messages, tools, parameters, self._dialect)
        reply = await self._chat.ask(body, self._timeout, on_delta)
        try:
            return parse_reply(reply, self._dialect)
        except ValidationError as error:
            raise over_our_limits(error) from None
