"""Claude on Vertex AI: the Messages API, with the model in the path and the version in the body."""

from __future__ import annotations

from typing import Any

from kubechain_common.api.v1alpha1.llm import LLMSpec
from kubechain_llm_gateway.providers.base import Validation
from kubechain_llm_gateway.providers.google_tokens import ServiceAccountTokens
from kubechain_llm_gateway.providers.messages_api import MessagesAPI
from kubechain_llm_gateway.providers.transport import HTTPPool
from kubechain_llm_gateway.providers.vertex_host import base_url_of, check_service_account, model_path

API_VERSION = "vertex-2023-10-16"


class VertexClaude(MessagesAPI):
    """A client with one service account. Schemas are asked for in words: structured outputs are off there by default
    policy.
    """

    def __init__(self, spec: LLMSpec, api_key: str | None, pool: HTTPPool) -> None:
        self._spec = spec
        self._model = (spec.parameters and spec.parameters.model) or ""
        self._tokens = ServiceAccountTokens(api_key or "", pool)
        path = model_path(spec, "anthropic", self._model)
        super().__init__(
            spec,
            pool,
            base_url=base_url_of(spec),
            tokens=self._tokens,
            path=f"{path}:rawPredict",
            stream_path=f"{path}:streamRawPredict",
        )

    async def validate(self) -> Validation:
        body = {
            "model": self._model,
            "anthropic_version": API_VERSION,
            "messages": [{"role": "user", "content": "hello"}],
        }
        path = f"{model_path(self._spec, 'anthropic', 'count-tokens')}:rawPredict"
        return await check_service_account(self._spec, self._tokens, self._caller, path, body)

    def _adapt(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"anthropic_version": API_VERSION, **{key: value for key, value in body.items() if key != "model"}}
