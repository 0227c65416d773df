from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from kubechain_common.api.v1alpha1 import LLM
from kubechain_llm_gateway.credentials import Credentials, CredentialsProblem, resolve_credentials
from kubechain_llm_gateway.llm_decision import (
    build_status,
    check_configuration,
    judge_missing_key,
    judge_validation,
    says_the_same,
)
from kubechain_llm_gateway.providers.base import Validation
from kubechain_llm_gateway.providers.errors import KeyRefusedError, RejectedRequestError, UnreachableProviderError

BuildLLM = Callable[..., LLM]
NOW = datetime(2026, 11, 23, tzinfo=UTC)
READY = {"ready": True, "status": "Ready", "statusDetail": "fine", "observedGeneration": 1}


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
    verdict = judge_missing_key(problem.detail)
    assert (verdict.status, verdict.reason, verdict.event_type) == ("Error", "SecretValidationFailed", "Warning")


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


def test_an_accepted_key_makes_ready(build_llm: BuildLLM) -> None:
    verdict = judge_validation(build_llm(), Validation("OpenAI API key validated successfully"))
    assert verdict is not None
    assert (verdict.status, verdict.reason, verdict.event_type) == ("Ready", "ValidationSucceeded", "Normal")


@pytest.mark.parametrize("status", [{}, READY])
def test_a_refused_key_is_an_error_also_for_a_ready_llm(build_llm: BuildLLM, status: dict[str, Any]) -> None:
    verdict = judge_validation(build_llm(status=status), KeyRefusedError("Bad key.", status_code=401))
    assert verdict is not None
    assert (verdict.status, verdict.reason, verdict.retry) == ("Error", "ValidationFailed", False)
    assert verdict.detail == "OpenAI refused the API key (401: Bad key.)"


def test_trouble_on_the_way_is_an_error_that_is_tried_again(build_llm: BuildLLM) -> None:
    verdict = judge_validation(build_llm(), UnreachableProviderError("cannot reach http://llm: refused"))
    assert verdict is not None
    assert (verdict.status, verdict.retry) == ("Error", True)
    assert verdict.detail == "OpenAI API validation failed: cannot reach http://llm: refused"


def test_trouble_on_the_way_leaves_a_validated_llm_in_service(build_llm: BuildLLM) -> None:
    trouble = UnreachableProviderError("refused")
    assert judge_validation(build_llm(status=READY), trouble) is None
    edited = build_llm(status=READY, metadata={"generation": 2})
    assert judge_validation(edited, trouble) is not None


def test_a_rejected_validation_is_not_tried_again(build_llm: BuildLLM) -> None:
    verdict = judge_validation(build_llm(provider="anthropic"), RejectedRequestError("no", status_code=400))
    assert verdict is not None
    assert (verdict.detail, verdict.retry) == ("Anthropic API validation failed: 400: no", False)


def test_the_status_carries_condition_and_generation(build_llm: BuildLLM) -> None:
    llm = build_llm(metadata={"generation": 3})
    verdict = judge_validation(llm, Validation("ok"))
    assert verdict is not None
    status = build_status(llm, verdict, NOW)
    assert (status.ready, status.status, status.status_detail, status.observed_generation) == (True, "Ready", "ok", 3)
    assert [(c.type, c.status, c.reason) for c in status.conditions] == [("Ready", "True", "ValidationSucceeded")]
    assert says_the_same(status, build_status(llm, verdict, NOW.replace(year=2027)))
    assert not says_the_same(llm.status, status)
