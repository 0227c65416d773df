"""Mistral: Chat Completions with ids of its own and ``random_seed``."""

from __future__ import annotations

from typing import Any

from kubechain_common.api.v1alpha1.llm import LLMSpec
from kubechain_llm_gateway.protocols.dialect import Dialect
from kubechain_llm_gateway.providers.base import base_url_of, host_of
from kubechain_llm_gateway.providers.chat_completions import ChatCompletions
from kubechain_llm_gateway.providers.transport import HTTPPool

OFFICIAL_URL = "https://api.mistral.ai/v1"


class MistralChat(ChatCompletions):
    """A client with one key of Mistral. ``maxRetries`` counts where calls are made again: see ``retry_policy``."""

    def __init__(self, spec: LLMSpec, api_key: str | None, pool: HTTPPool) -> None:
        base_url = base_url_of(spec, OFFICIAL_URL)
        dialect = Dialect(host=host_of(base_url), mistral=True)
        super().__init__(
            spec,
            pool,
            title="Mistral",
            base_url=base_url,
            dialect=dialect,
            api_key=api_key,
            stream_options=False,  # it refuses fields that it does not know, and tells the usage without being asked
        )
        self._seed = spec.mistral.random_seed if spec.mistral else None

    def _adapt(self, body: dict[str, Any]) -> dict[str, Any]:
        return body if self._seed is None else {**body, "random_seed": self._seed}
