"""Vertex AI: where it is, and how a service account is checked, whichever protocol the model speaks."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from kubechain_common.api.v1alpha1.llm import LLMSpec, VertexConfig
from kubechain_llm_gateway.providers.base import VALIDATION_TIMEOUT, Validation
from kubechain_llm_gateway.providers.errors import ProviderError
from kubechain_llm_gateway.providers.google_tokens import ServiceAccountTokens
from kubechain_llm_gateway.providers.sdk_call import SDKCaller
from kubechain_llm_gateway.providers.sdk_provider import NOT_OFFERED

_OWN_HOSTS = {"global": "aiplatform.googleapis.com"} | {
    region: f"aiplatform.{region}.rep.googleapis.com" for region in ("us", "eu")
}


def base_url_of(spec: LLMSpec) -> str:
    """The location's host with the API's version, or ``parameters.baseUrl`` in its place."""
    given = spec.parameters and spec.parameters.base_url
    if given:
        return given.rstrip("/")
    location = _config(spec).cloud_location
    return f"https://{_OWN_HOSTS.get(location, f'{location}-aiplatform.googleapis.com')}/v1"


def place_of(spec: LLMSpec) -> str:
    """The path of the project's location."""
    config = _config(spec)
    return f"/projects/{quote(config.cloud_project, safe='')}/locations/{quote(config.cloud_location, safe='')}"


def model_path(spec: LLMSpec, publisher: str, model: str) -> str:
    return f"{place_of(spec)}/publishers/{publisher}/models/{quote(model, safe='@')}"


async def check_service_account(
    spec: LLMSpec, tokens: ServiceAccountTokens, caller: SDKCaller, path: str | None, body: Any
) -> Validation:
    """Fetches a token, and has the tokens of a word counted, which is free and shows what the account may do.

    Models of other publishers (no ``path``) can not be asked for that, and a proxy may not offer it.
    """
    await tokens.token()
    try:
        if path is not None:
            await caller.post(path, body, VALIDATION_TIMEOUT)
    except ProviderError as error:
        proxied = spec.parameters is not None and spec.parameters.base_url is not None
        if not (proxied and error.status_code in NOT_OFFERED):
            raise
    return Validation("Vertex AI service account validated successfully")


def _config(spec: LLMSpec) -> VertexConfig:
    if spec.vertex is None:
        raise ValueError("vertex configuration is required for vertex provider")
    return spec.vertex
