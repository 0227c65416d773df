from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kubechain_common.api.secret_values import SecretProblem
from kubechain_common.api.v1alpha1 import LLM
from kubechain_llm_gateway.llms.credentials import Credentials, resolve_credentials
from kubechain_llm_gateway.llms.decision import check_configuration, explain
from kubechain_llm_gateway.providers.errors import (
    KeyRefusedError,
    ProviderError,
    RejectedRequestError,
    UnreachableProviderError,
)

BuildLLM = Callable[..., LLM]
AZURE = {"openai": {"apiType": "AZURE"}, "parameters": {"model": "m", "baseUrl": "https://r.openai.azure.com"}}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"apiKeyFrom": None, "parameters": {"model": "m", "baseUrl": "http://llm"}},
        {"openai": {"apiType": "OPEN_AI"}},
        {"provider": "anthropic", "parameters": {"model": "m", "temperature": "1.0", "topK": 3}},
        {**AZURE},
        {"provider": "mistral", "mistral": {"timeout": 5, "maxRetries": 0, "randomSeed": -1}},
        {"provider": "google", "google": {}},
        {"provider": "vertex", "vertex": {"cloudProject": "p", "cloudLocation": "l"}},
    ],
)
def test_usable_specs(build_llm: BuildLLM, spec: dict[str, Any]) -> None:
    assert check_configuration(build_llm(**spec)) is None


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"fallbacks": [{"name": "gpt-4o"}]}, 'fallbacks names "gpt-4o" itself: remove it'),
        ({"parameters": None}, "parameters.model is required"),
        ({"parameters": {}}, "parameters.model is required"),
        (
            {"openai": {"apiType": "AZURE"}},
            "parameters.baseUrl is required for openai.apiType AZURE: the endpoint of the Azure resource",
        ),
        ({"openai": {"apiType": "AZURE_AD"}}, "parameters.baseUrl is required for openai.apiType AZURE_AD"),
        ({**AZURE, "apiKeyFrom": None}, "apiKeyFrom is required for openai.apiType AZURE"),
        (
            {**AZURE, "openai": {"apiType": "AZURE", "organization": "o"}},
            "openai.organization is not known to Azure OpenAI: remove it",
        ),
        ({"openai": {"apiVersion": "2024-10-21"}}, "openai.apiVersion is for openai.apiType AZURE and AZURE_AD only"),
        ({"apiKeyFrom": None}, "apiKeyFrom is required for provider openai"),
        (
            {"apiKeyFrom": None, "parameters": {"model": "m", "baseUrl": "https://api.openai.com/v1"}},
            "apiKeyFrom is required for provider openai",
        ),
        ({"provider": "anthropic", "apiKeyFrom": None}, "apiKeyFrom is required for provider anthropic"),
        ({"provider": "mistral", "apiKeyFrom": None}, "apiKeyFrom is required for provider mistral"),
        (
            {"provider": "mistral", "mistral": {"timeout": 5}, "requestTimeoutSeconds": 6},
            "mistral.timeout and requestTimeoutSeconds say the same: keep one of them",
        ),
        (
            {"provider": "google", "google": {"cloudProject": "p"}},
            "google.cloudProject has no meaning with an API key: remove it, or use provider vertex",
        ),
        ({"provider": "google", "google": {"cloudLocation": "l"}}, "google.cloudLocation has no meaning"),
        ({"provider": "vertex"}, "vertex configuration is required for vertex provider"),
        (
            {"provider": "vertex", "vertex": {"cloudProject": "p", "cloudLocation": "l"}, "apiKeyFrom": None},
            "apiKeyFrom is required for provider vertex",
        ),
        (
            {"provider": "anthropic", "parameters": {"model": "m", "frequencyPenalty": "0"}},
            "parameters.frequencyPenalty is not known to Anthropic: remove it",
        ),
        (
            {"provider": "anthropic", "parameters": {"model": "m", "presencePenalty": "1"}},
            "parameters.presencePenalty is not known to Anthropic: remove it",
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
    assert isinstance(problem, SecretProblem)
    assert sentence in problem.detail


def test_a_key_is_stripped_told_apart_and_never_shown(build_llm: BuildLLM) -> None:
    one = resolve_credentials(build_llm(), {"OPENAI_API_KEY": "sk-1\n"})
    other = resolve_credentials(build_llm(), {"OPENAI_API_KEY": "sk-2"})
    assert isinstance(one, Credentials)
    assert isinstance(other, Credentials)
    assert one.api_key == "sk-1"
    assert one.digest != other.digest
    assert "sk-1" not in repr(one)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("sk-1", "is not the JSON key file of a Google service account"),
        ('{"type": "authorized_user"}', 'its "type" is not "service_account"'),
        (
            '{"type": "service_account", "client_email": "a", "private_key": ""}',
            "it has no private_key, token_uri",
        ),
    ],
)
def test_what_is_no_service_account_is_told_without_its_content(build_llm: BuildLLM, value: str, sentence: str) -> None:
    problem = resolve_credentials(build_llm(provider="vertex"), {"OPENAI_API_KEY": value})
    assert isinstance(problem, SecretProblem)
    assert problem.detail.startswith('key "OPENAI_API_KEY" in secret "openai" ')
    assert sentence in problem.detail
    assert value not in problem.detail


def test_a_service_account_may_be_written_over_many_lines(build_llm: BuildLLM) -> None:
    account = json.dumps(
        {"type": "service_account", "client_email": "a@b", "private_key": "ключ\n", "token_uri": "https://t"}, indent=2
    )
    credentials = resolve_credentials(build_llm(provider="vertex"), {"OPENAI_API_KEY": account})
    assert isinstance(credentials, Credentials)
    assert credentials.api_key == account


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
    for provider, title in (("anthropic", "Anthropic"), ("mistral", "Mistral"), ("google", "Google")):
        assert explain(build_llm(provider=provider), error) == sentence.replace("OpenAI", title)
    assert explain(build_llm(**AZURE), error) == sentence.replace("OpenAI", "Azure OpenAI")
    vertex = sentence.replace("OpenAI", "Vertex AI").replace("the API key", "the service account")
    for model in ("gemini-2.5-pro", "claude-opus-4-6"):
        assert explain(build_llm(provider="vertex", parameters={"model": model}), error) == vertex
