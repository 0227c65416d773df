"""What an LLM's status should say: the pure half of its reconciler."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.llm import LLMParameters, LLMStatus
from kubechain_llm_gateway.providers.base import Validation
from kubechain_llm_gateway.providers.errors import KeyRefusedError, ProviderError
from kubechain_llm_gateway.providers.registry import SUPPORTED

PROVIDER_TITLES = {"openai": "OpenAI", "anthropic": "Anthropic"}


@dataclass(frozen=True)
class Verdict:
    """The status to show, the event that goes with it, and whether to look again by ourselves."""

    status: Literal["Ready", "Error"]
    reason: str
    detail: str
    retry: bool = False

    @property
    def event_type(self) -> Literal["Normal", "Warning"]:
        return "Normal" if self.status == "Ready" else "Warning"


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


def judge_configuration(detail: str) -> Verdict:
    return Verdict("Error", "ValidationFailed", detail)


def judge_missing_key(detail: str) -> Verdict:
    return Verdict("Error", "SecretValidationFailed", detail)


def judge_validation(llm: LLM, outcome: Validation | ProviderError) -> Verdict | None:
    """The verdict on what the provider said of the key.

    None keeps the status as it is: a provider that cannot be reached for a moment is no reason to take a validated LLM,
    and every Agent on it, out of service. The call worker has retries of its own.
    """
    if isinstance(outcome, Validation):
        return Verdict("Ready", "ValidationSucceeded", outcome.detail)
    title = PROVIDER_TITLES.get(llm.spec.provider, llm.spec.provider)
    if isinstance(outcome, KeyRefusedError):
        return Verdict("Error", "ValidationFailed", f"{title} refused the API key ({_answer(outcome)})")
    if outcome.retryable and llm.status.ready and llm.status.observed_generation == llm.metadata.generation:
        return None
    return Verdict(
        "Error", "ValidationFailed", f"{title} API validation failed: {_answer(outcome)}", retry=outcome.retryable
    )


def _answer(error: ProviderError) -> str:
    return error.message if error.status_code is None else f"{error.status_code}: {error.message}"


def build_status(llm: LLM, verdict: Verdict, now: datetime) -> LLMStatus:
    """The LLM's status with the verdict in it."""
    return llm.status.mark(verdict.status, verdict.reason, verdict.detail, generation=llm.metadata.generation, now=now)


def says_the_same(old: LLMStatus, new: LLMStatus) -> bool:
    return (old.status, old.status_detail, old.observed_generation) == (
        new.status,
        new.status_detail,
        new.observed_generation,
    )
