"""What every provider with Chat Completions shares: one client of the openai SDK, one call, one way to check a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openai import APIStatusError, AsyncOpenAI, OpenAIError, omit

from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.llm import LLMParameters, LLMSpec
from kubechain_common.messages import ResponseFormat, ToolDefinition
from kubechain_llm_gateway.protocols.dialect import Dialect
from kubechain_llm_gateway.protocols.openai_mapping import build_request, parse_reply
from kubechain_llm_gateway.protocols.openai_stream import ChatAccumulator
from kubechain_llm_gateway.providers.base import Completion, Tokens, Validation
from kubechain_llm_gateway.providers.sdk_call import SDKCaller
from kubechain_llm_gateway.providers.sdk_provider import SDKProvider
from kubechain_llm_gateway.providers.streamed_call import StreamedCall
from kubechain_llm_gateway.providers.transport import HTTPPool


class ChatCompletions(SDKProvider):
    """A client with one key of one host.

    ``api_key`` goes as a bearer token, or ``tokens`` give that one; ``headers`` and ``query`` go with every request.
    ``path`` is where completions are made, below ``base_url``; ``stream_options`` says that it takes the wish for usage
    there.
    """

    def __init__(
        self,
        spec: LLMSpec,
        pool: HTTPPool,
        *,
        title: str,
        base_url: str,
        dialect: Dialect,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        tokens: Tokens | None = None,
        path: str = "/chat/completions",
        stream_options: bool = True,
    ) -> None:
        self._title = title
        self._dialect = dialect
        client = AsyncOpenAI(
            api_key=api_key or "",
            base_url=base_url,
            max_retries=0,
            default_query=query,
            http_client=pool.build_client(),
            _enforce_credentials=False,
        )
        # Set after the constructor, which would fill what is absent from OPENAI_* variables of our own environment.
        client.admin_api_key = None
        client.organization = spec.openai.organization if spec.openai else None
        client.project = None
        caller = SDKCaller(
            client,
            status_error=APIStatusError,
            sdk_error=OpenAIError,
            secret=api_key or (headers or {}).get("api-key"),
            headers={**(headers or {}), **({} if api_key else {"Authorization": omit})},
            tokens=tokens,
        )
        options = {"stream_options": {"include_usage": True}} if stream_options else None
        super().__init__(spec, caller, StreamedCall(caller, path, ChatAccumulator, options))

    async def validate(self) -> Validation:
        return await self._list_models(self._title, "/models", {})

    def _build_body(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDefinition],
        parameters: LLMParameters,
        response_format: ResponseFormat | None,
    ) -> dict[str, Any]:
        return build_request(messages, tools, parameters, self._dialect, response_format)

    def _parse(self, reply: Any) -> Completion:
        return parse_reply(reply, self._dialect)
