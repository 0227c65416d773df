"""What is wrong with an LLM, in sentences for its status: the pure half of its validation."""

from __future__ import annotations

from pydantic.alias_generators import to_camel

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.llm import LLMParameters, LLMSpec, OpenAIConfig
from kubechain_llm_gateway.llms.parameter_support import check_parameters
from kubechain_llm_gateway.providers.errors import KeyRefusedError, ProviderError
from kubechain_llm_gateway.providers.wire_target import Target, target_of

_TITLES = {Target.COMPATIBLE: "OpenAI", Target.VERTEX_CLAUDE: "Vertex AI"}
"""How the sentences about keys call a target, where that is not its own name."""


def check_configuration(llm: LLM) -> str | None:
    """What is wrong with the spec, whatever the key; None when it can be used."""
    spec = llm.spec
    parameters = spec.parameters or LLMParameters()
    target = target_of(spec)
    if any(ref.name == llm.name for ref in spec.fallbacks):
        return f'fallbacks names "{llm.name}" itself: remove it'
    if not parameters.model:
        return "parameters.model is required: name the model to use"
    if spec.api_key_from is None and target != Target.COMPATIBLE:
        return f"apiKeyFrom is required for {_named(spec)}"
    return _check_provider(spec, target) or check_parameters(target, parameters)


def _named(spec: LLMSpec) -> str:
    azure = spec.openai is not None and spec.openai.api_type != "OPEN_AI"
    return f"openai.apiType {spec.openai.api_type}" if azure and spec.openai else f"provider {spec.provider}"


def _check_provider(spec: LLMSpec, target: Target) -> str | None:
    match target:
        case Target.OPENAI | Target.COMPATIBLE | Target.AZURE:
            return _check_openai(spec, target)
        case Target.MISTRAL:
            return _check_mistral(spec)
        case Target.GOOGLE:
            return _check_google(spec)
        case Target.VERTEX_GEMINI | Target.VERTEX_CLAUDE if spec.vertex is None:
            return "vertex configuration is required for vertex provider"
        case _:
            return None


def _check_openai(spec: LLMSpec, target: Target) -> str | None:
    config = spec.openai or OpenAIConfig()
    if target == Target.AZURE:
        if not (spec.parameters and spec.parameters.base_url):
            return (
                f"parameters.baseUrl is required for openai.apiType {config.api_type}: the endpoint of the Azure"
                " resource, like https://RESOURCE.openai.azure.com"
            )
        if config.organization:
            return f"openai.organization is not known to {target}: remove it"
    elif config.api_version:
        return "openai.apiVersion is for openai.apiType AZURE and AZURE_AD only: remove it"
    return None


def _check_mistral(spec: LLMSpec) -> str | None:
    if spec.mistral is not None and spec.mistral.timeout is not None and spec.request_timeout_seconds is not None:
        return "mistral.timeout and requestTimeoutSeconds say the same: keep one of them"
    return None


def _check_google(spec: LLMSpec) -> str | None:
    for name in ("cloud_project", "cloud_location"):
        if spec.google is not None and getattr(spec.google, name):
            return f"google.{to_camel(name)} has no meaning with an API key: remove it, or use provider vertex"
    return None


def _title_of(llm: LLM) -> str:
    target = target_of(llm.spec)
    return _TITLES.get(target, target)


def explain(llm: LLM, error: ProviderError) -> str:
    """Why the provider did not say yes to the key."""
    title = _title_of(llm)
    answer = error.message if error.status_code is None else f"{error.status_code}: {error.message}"
    if isinstance(error, KeyRefusedError):
        key = "service account" if llm.spec.provider == "vertex" else "API key"
        return f"{title} refused the {key} ({answer})"
    return f"{title} API validation failed: {answer}"


def explain_unavailable(llm: LLM, reason: str) -> str:
    """Why nobody calls the provider at the moment. The same for as long as that lasts: each change is a write."""
    return f"{_say_unavailable(llm, reason)}. It is asked again every few seconds, and calls wait until it answers"


def explain_fallback(llm: LLM, reason: str, fallback: LLM) -> str:
    """The same, with somebody who answers meanwhile."""
    return f'{_say_unavailable(llm, reason)}. LLM "{fallback.name}" answers in its place until it is back'


def _say_unavailable(llm: LLM, reason: str) -> str:
    return f"{_title_of(llm)} is unavailable: {reason.removesuffix('.')}"
