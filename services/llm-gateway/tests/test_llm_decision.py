from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kubechain_common.api.v1alpha1 import LLM
from kubechain_llm_gateway.credentials import Credentials, CredentialsProblem, resolve_credentials
from kubechain_llm_gateway.llm_decision import check_configuration, explain
from kubechain_llm_gateway.providers.errors import (
    KeyRefusedError,
    ProviderError,
    RejectedRequestError,
    UnreachableProviderError,
)

BuildLLM = Callable[..., LLM]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"apiKeyFrom": None, "parameters": {"model": "m", "baseUrl": "http://llm"}},
        {"openai": {"apiType": "OPEN_AI"}},
        {"provider": "anthropic", "parameters": {"model": "m", "temperature": "1.0", "topK": 3}},
    ],
)
def test_usable_specs(build_llm: BuildLLM, spec: dict[str, Any]) -> None:
    assert check_configuration(build_llm(**spec)) is None


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            {"provider": "mistral"},
            'provider "mistral" is not supported by this version of llm-gateway; '
            "use openai (with baseUrl) or anthropic",
        ),
        ({"provider": "google"}, 'provider "google" is not supported'),
        ({"provider": "vertex"}, 'provider "vertex" is not supported'),
        ({"parameters": None}, "parameters.model is required"),
        ({"parameters": {}}, "parameters.model is required"),
        ({"openai": {"apiType": "AZURE"}}, "openai.apiType AZURE is not supported"),
        ({"openai": {"apiType": "AZURE_AD"}}, "openai.apiType AZURE_AD is not supported"),
        ({"apiKeyFrom": None}, "apiKeyFrom is required for provider openai"),
        ({"provider": "anthropic", "apiKeyFrom": None}, "apiKeyFrom is required for provider anthropic"),
        (
            {"provider": "anthropic", "parameters": {"model": "m", "frequencyPenalty": "0"}},
            "parameters.frequencyPenalty is not known to provider anthropic",
        ),
        (
            {"provider": "anthropic", "parameters": {"model": "m", "presencePenalty": "1"}},
            "parameters.presencePenalty is not known to provider anthropic",
        ),
        ({"provider": "anthropic", "parameters": {"model": "m", "temperature": "1.5"}}, "goes from 0 to 1"),
    ],
)
def test_unusable_specs_say_what_to_do(build_llm: BuildLLM, spec: dict[str, Any], sentence: str) -> None:
    assert sentence in (check_configuration(build_llm(**spec)) or "")


@pytest.mark.parametrize(
    ("secret", "sentence"),
    [
        (None, 'Secret "openai" not found in namespace "default": create it with key OPENAI_API_KEY'),
        ({}, 'key "OPENAI_API_KEY" not found in secret "openai"'),
        ({"OPENAI_API_KEY": " \n"}, 'key "OPENAI_API_KEY" in secret "openai" is empty'),
        ({"OPENAI_API_KEY": "a\nb"}, "no HTTP header can carry"),
        ({"OPENAI_API_KEY": "ключ"}, "no HTTP header can carry"),
    ],
)
def test_what_is_missing_of_a_key(build_llm: BuildLLM, secret: dict[str, str] | None, sentence: str) -> None:
    problem = resolve_credentials(build_llm(), secret)
    assert isinstance(problem, CredentialsProblem)
    assert sentence in problem.detail


def test_a_key_is_stripped_told_apart_and_never_shown(build_llm: BuildLLM) -> None:
    one = resolve_credentials(build_llm(), {"OPENAI_API_KEY": "sk-1\n"})
    other = resolve_credentials(build_llm(), {"OPENAI_API_KEY": "sk-2"})
    assert isinstance(one, Credentials)
    assert isinstance(other, Credentials)
    assert one.api_key == "sk-1"
    assert one.digest != other.digest
    assert "sk-1" not in repr(one)


def test_an_llm_without_a_secret_needs_none(build_llm: BuildLLM) -> None:
    llm = build_llm(apiKeyFrom=None, parameters={"model": "m", "baseUrl": "http://llm"})
    assert resolve_credentials(llm, None) == Credentials(None)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (KeyRefusedError("Bad key.", status_code=401), "OpenAI refused the API key (401: Bad key.)"),
        (
            UnreachableProviderError("cannot reach http://llm: refused"),
            "OpenAI API validation failed: cannot reach http://llm: refused",
        ),
        (RejectedRequestError("no", status_code=400), "OpenAI API validation failed: 400: no"),
    ],
)
def test_what_a_provider_says_is_told(build_llm: BuildLLM, error: ProviderError, sentence: str) -> None:
    assert explain(build_llm(), error) == sentence
    assert explain(build_llm(provider="anthropic"), error) == sentence.replace("OpenAI", "Anthropic")
