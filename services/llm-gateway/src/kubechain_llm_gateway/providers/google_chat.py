"""Gemini with an API key of Google AI Studio, through its endpoint for OpenAI's protocol."""

from __future__ import annotations

from kubechain_common.api.v1alpha1.llm import LLMSpec
from kubechain_llm_gateway.protocols.dialect import Dialect
from kubechain_llm_gateway.providers.base import base_url_of, host_of
from kubechain_llm_gateway.providers.chat_completions import ChatCompletions
from kubechain_llm_gateway.providers.transport import HTTPPool

OFFICIAL_URL = "https://generativelanguage.googleapis.com/v1beta/openai"


class GoogleChat(ChatCompletions):
    """A client with one key of Google AI Studio."""

    def __init__(self, spec: LLMSpec, api_key: str | None, pool: HTTPPool) -> None:
        base_url = base_url_of(spec, OFFICIAL_URL)
        dialect = Dialect(host=host_of(base_url), gemini=True)
        super().__init__(spec, pool, title="Google", base_url=base_url, dialect=dialect, api_key=api_key)
