"""Azure OpenAI: ``parameters.baseUrl`` is the resource's endpoint, ``parameters.model`` the name of a deployment.

``openai.apiType: AZURE`` sends the key in the header api-key; with AZURE_AD the Secret holds a token of Entra ID, which
goes as a bearer token and has to be replaced in the Secret before it expires.
"""

from __future__ import annotations

from urllib.parse import quote

from kubechain_common.api.v1alpha1.llm import LLMSpec
from kubechain_llm_gateway.protocols.dialect import Dialect
from kubechain_llm_gateway.providers.base import base_url_of, host_of
from kubechain_llm_gateway.providers.chat_completions import ChatCompletions
from kubechain_llm_gateway.providers.transport import HTTPPool

DEFAULT_API_VERSION = "2024-10-21"
_FIRST_WITH_COMPLETION_TOKENS = "2024-09-01"
"""The first version of the API that takes ``max_completion_tokens``, and that tells the usage of a stream."""


class AzureChat(ChatCompletions):
    """A client for one deployment of one Azure resource."""

    def __init__(self, spec: LLMSpec, api_key: str | None, pool: HTTPPool) -> None:
        version = (spec.openai and spec.openai.api_version) or DEFAULT_API_VERSION
        base_url = base_url_of(spec, "").removesuffix("/openai") + "/openai"
        deployment = (spec.parameters and spec.parameters.model) or ""
        by_token = spec.openai is not None and spec.openai.api_type == "AZURE_AD"
        super().__init__(
            spec,
            pool,
            title="Azure OpenAI",
            base_url=base_url,
            dialect=Dialect(
                host=host_of(base_url),
                official=True,
                before_completion_tokens=version < _FIRST_WITH_COMPLETION_TOKENS,
            ),
            api_key=api_key if by_token else None,
            headers=None if by_token or api_key is None else {"api-key": api_key},
            query={"api-version": version},
            stream_options=version >= _FIRST_WITH_COMPLETION_TOKENS,
            path=f"/deployments/{quote(deployment, safe='')}/chat/completions",
        )
