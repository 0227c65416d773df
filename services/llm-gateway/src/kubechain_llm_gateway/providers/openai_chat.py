"""OpenAI and every server that speaks Chat Completions."""

from __future__ import annotations

from kubechain_common.api.v1alpha1.llm import LLMSpec
from kubechain_llm_gateway.protocols.dialect import Dialect
from kubechain_llm_gateway.providers.base import Validation, base_url_of, host_of
from kubechain_llm_gateway.providers.chat_completions import ChatCompletions
from kubechain_llm_gateway.providers.errors import KeyRefusedError
from kubechain_llm_gateway.providers.transport import HTTPPool
from kubechain_llm_gateway.providers.wire_target import OPENAI_URL, is_openai_host


class OpenAIChat(ChatCompletions):
    """A client with one key of OpenAI, or for one compatible server, which may need none."""

    def __init__(self, spec: LLMSpec, api_key: str | None, pool: HTTPPool) -> None:
        base_url = base_url_of(spec, OPENAI_URL)
        host = host_of(base_url)
        dialect = Dialect(host=host, official=is_openai_host(host))
        super().__init__(spec, pool, title="OpenAI", base_url=base_url, dialect=dialect, api_key=api_key)
        self._keyless = api_key is None

    async def validate(self) -> Validation:
        try:
            validation = await super().validate()
        except KeyRefusedError as error:
            if "missing scopes" in error.message.lower():
                return Validation(
                    "OpenAI API is reachable; the API key may not list models, so it could not be checked further"
                )
            raise
        if self._keyless and "validated" in validation.detail:
            return Validation("OpenAI-compatible server is reachable; no API key is used")
        return validation
