"""What every provider shares, whichever protocol it speaks: how a completion is asked for, and how a key is checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from kubechain_common.api.nesting import MAX_NESTING, is_deep
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.llm import LLMParameters, LLMSpec
from kubechain_common.messages import ResponseFormat, ToolDefinition
from kubechain_llm_gateway.protocols.wire_json import encode
from kubechain_llm_gateway.providers.base import (
    VALIDATION_TIMEOUT,
    Completion,
    OnDelta,
    Validation,
    identify,
    timeout_of,
)
from kubechain_llm_gateway.providers.errors import ProviderError, describe_limit, over_our_limits
from kubechain_llm_gateway.providers.sdk_call import SDKCaller
from kubechain_llm_gateway.providers.streamed_call import StreamedCall

NOT_OFFERED = frozenset({404, 405, 501})
"""Statuses with which a host says that it does not have an endpoint."""


MAX_PROVIDER_DATA = 512 * 1024
"""Bytes that a provider may add to a message, the model's thinking for one."""


def find_excess(data: Mapping[str, Any] | None) -> str:
    """Why a Task can not keep what a provider added to its message; empty if it can."""
    if is_deep(data):
        return f"what the provider added to it is nested more than {MAX_NESTING} levels deep"
    size = len(encode(data))
    if size > MAX_PROVIDER_DATA:
        return f"what the provider added to it has {size:,} bytes, and {MAX_PROVIDER_DATA:,} is the most"
    return ""


class SDKProvider(ABC):
    """A client with one key of one host.

    A protocol says how a request is built and a reply read, a provider what it wants otherwise.
    """

    def __init__(self, spec: LLMSpec, caller: SDKCaller, completions: StreamedCall) -> None:
        self._caller = caller
        self._completions = completions
        self._timeout = timeout_of(spec)

    async def complete(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDefinition],
        parameters: LLMParameters,
        on_delta: OnDelta | None,
        response_format: ResponseFormat | None,
    ) -> Completion:
        body = self._adapt(self._build_body(messages, tools, parameters, response_format))
        reply = await self._completions.ask(body, self._timeout, on_delta)
        try:
            completion = identify(self._parse(reply), reply)
        except ValidationError as error:
            raise over_our_limits(describe_limit(error)) from None
        problem = find_excess(completion.message.provider_data)
        if problem:
            raise over_our_limits(problem)
        return completion

    async def _list_models(self, title: str, path: str, params: Mapping[str, Any]) -> Validation:
        """Checks the key, which costs nothing."""
        try:
            await self._caller.get(path, dict(params), VALIDATION_TIMEOUT)
        except ProviderError as error:
            if error.status_code in NOT_OFFERED:
                return Validation(
                    f"{title}-compatible server is reachable; it lists no models, so the API key could not be checked"
                )
            raise
        return Validation(f"{title} API key validated successfully")

    @abstractmethod
    def _build_body(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolDefinition],
        parameters: LLMParameters,
        response_format: ResponseFormat | None,
    ) -> dict[str, Any]:
        """The request in the protocol's words."""

    @abstractmethod
    def _parse(self, reply: Any) -> Completion:
        """The completion in a reply."""

    def _adapt(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body as this host wants it."""
        return body
