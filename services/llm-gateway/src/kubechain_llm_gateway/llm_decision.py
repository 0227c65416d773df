"""What is wrong with an LLM, in sentences for its status: the pure half of its validation."""

from __future__ import annotations

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.llm import LLMParameters
from kubechain_llm_gateway.providers.errors import KeyRefusedError, ProviderError
from kubechain_llm_gateway.providers.registry import SUPPORTED

PROVIDER_TITLES = {"openai": "OpenAI", "anthropic": "Anthropic"}


def check_configuration(llm: LLM) -> str | None:
    """What is wrong with the spec, whatever the key; None when it can be used."""
    spec = llm.spec
    parameters = spec.parameters or LLMParameters()
    if spec.provider not in SUPPORTED:
        return (
            f'provider "{spec.provider}" is not supported by this version of llm-gateway; '
            "use openai (with baseUrl) or anthropic"
        )
    if not parameters.model:
        return "parameters.model is required: name the model to use"
    if spec.provider == "openai":
        return _check_openai(llm)
    return _check_anthropic(llm, parameters)


def _check_openai(llm: LLM) -> str | None:
    if llm.spec.openai is not None and llm.spec.openai.api_type != "OPEN_AI":
        return (
            f"openai.apiType {llm.spec.openai.api_type} is not supported by this version of llm-gateway; "
            "use OPEN_AI, with parameters.baseUrl for a compatible server"
        )
    if llm.spec.api_key_from is None and not (llm.spec.parameters and llm.spec.parameters.base_url):
        return "apiKeyFrom is required for provider openai"
    return None


def _check_anthropic(llm: LLM, parameters: LLMParameters) -> str | None:
    if llm.spec.api_key_from is None:
        return "apiKeyFrom is required for provider anthropic"
    for name, value in (
        ("frequencyPenalty", parameters.frequency_penalty),
        ("presencePenalty", parameters.presence_penalty),
    ):
        if value is not None:
            return f"parameters.{name} is not known to provider anthropic: remove it"
    if parameters.temperature is not None and float(parameters.temperature) > 1:
        return "parameters.temperature of provider anthropic goes from 0 to 1"
    return None


def explain(llm: LLM, error: ProviderError) -> str:
    """Why the provider did not say yes to the key."""
    title = PROVIDER_TITLES.get(llm.spec.provider, llm.spec.provider)
    answer = error.message if error.status_code is None else f"{error.status_code}: {error.message}"
    if isinstance(error, KeyRefusedError):
        return f"{title} refused the API key ({answer})"
    return f"{title} API validation failed: {answer}"


def explain_unavailable(llm: LLM, reason: str) -> str:
    """Why nobody calls the provider at the moment. The same for as long as that lasts: each change is a write."""
    title = PROVIDER_TITLES.get(llm.spec.provider, llm.spec.provider)
    return (
        f"{title} is unavailable: {reason.removesuffix('.')}. It is asked again every few seconds, "
        "and calls wait until it answers"
    )
