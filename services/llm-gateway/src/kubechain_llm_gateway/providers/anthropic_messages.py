"""Anthropic and servers that speak its Messages API."""

from __future__ import annotations

from kubechain_common.api.v1alpha1.llm import LLMSpec
from kubechain_llm_gateway.protocols.model_families import claude_version
from kubechain_llm_gateway.providers.base import Validation, base_url_of
from kubechain_llm_gateway.providers.messages_api import MessagesAPI
from kubechain_llm_gateway.providers.transport import HTTPPool

OFFICIAL_URL = "https://api.anthropic.com"

API_VERSION = "2023-06-01"
"""Pinned: the SDK's own (2026-10-21) refuses temperature, top_p and top_k, which an LLM may set."""

_FIRST_WITH_SCHEMA = (4, 5)


class AnthropicMessages(MessagesAPI):
    """A client with one key of Anthropic."""

    def __init__(self, spec: LLMSpec, api_key: str | None, pool: HTTPPool) -> None:
        parameters, config = spec.parameters, spec.anthropic
        model = (parameters and parameters.model) or ""
        super().__init__(
            spec,
            pool,
            # The SDK adds /v1 itself; a base URL written with it means the same.
            base_url=base_url_of(spec, OFFICIAL_URL).removesuffix("/v1"),
            api_key=api_key,
            headers=_build_headers(spec, api_key or ""),
            cached=bool(config and config.prompt_caching),
            takes_schema=(claude_version(model) or (0, 0)) >= _FIRST_WITH_SCHEMA,
        )

    async def validate(self) -> Validation:
        return await self._list_models("Anthropic", "/v1/models", {"limit": 1})


def _build_headers(spec: LLMSpec, api_key: str) -> dict[str, str]:
    # The SDK sends the key as a bearer token only; proxies and compatible servers of the older API version read x-api-
    # key.
    headers = {"anthropic-version": API_VERSION, "x-api-key": api_key}
    beta = spec.anthropic and spec.anthropic.anthropic_beta_header
    return {**headers, "anthropic-beta": beta} if beta else headers
