"""Gemini, and what else speaks Chat Completions, on Vertex AI."""

from __future__ import annotations

from typing import Any

from kubechain_common.api.v1alpha1.llm import LLMSpec
from kubechain_llm_gateway.protocols.dialect import Dialect
from kubechain_llm_gateway.providers.base import Validation, host_of
from kubechain_llm_gateway.providers.chat_completions import ChatCompletions
from kubechain_llm_gateway.providers.google_tokens import ServiceAccountTokens
from kubechain_llm_gateway.providers.transport import HTTPPool
from kubechain_llm_gateway.providers.vertex_host import base_url_of, check_service_account, model_path, place_of

_WORD = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}


class VertexGemini(ChatCompletions):
    """A client with one service account; a model without a publisher is one of Google's."""

    def __init__(self, spec: LLMSpec, api_key: str | None, pool: HTTPPool) -> None:
        self._spec = spec
        self._model = (spec.parameters and spec.parameters.model) or ""
        self._tokens = ServiceAccountTokens(api_key or "", pool)
        base_url = base_url_of(spec)
        publisher, _, _ = self._full_name.partition("/")
        super().__init__(
            spec,
            pool,
            title="Vertex AI",
            base_url=base_url,
            dialect=Dialect(host=host_of(base_url), gemini=publisher == "google"),
            tokens=self._tokens,
            path=f"{place_of(spec)}/endpoints/openapi/chat/completions",
        )

    @property
    def _full_name(self) -> str:
        return self._model if "/" in self._model else f"google/{self._model}"

    async def validate(self) -> Validation:
        publisher, _, model = self._full_name.partition("/")
        path = f"{model_path(self._spec, publisher, model)}:countTokens" if publisher == "google" else None
        return await check_service_account(self._spec, self._tokens, self._caller, path, _WORD)

    def _adapt(self, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "model": self._full_name}
