"""Whom an LLM's calls really go to, which decides about parameters, sentences and the class that makes them. Pure."""

from __future__ import annotations

from enum import StrEnum
from urllib.parse import urlsplit

from kubechain_common.api.v1alpha1.llm import LLMSpec

OPENAI_URL = "https://api.openai.com/v1"


class Target(StrEnum):
    """What is called, by the name that a sentence gives it."""

    OPENAI = "OpenAI"
    COMPATIBLE = "OpenAI-compatible server"
    AZURE = "Azure OpenAI"
    ANTHROPIC = "Anthropic"
    MISTRAL = "Mistral"
    GOOGLE = "Google"
    VERTEX_GEMINI = "Vertex AI"
    VERTEX_CLAUDE = "Claude on Vertex AI"


def target_of(spec: LLMSpec) -> Target:
    """The target; it does not depend on whether the spec is a usable one."""
    match spec.provider:
        case "anthropic":
            return Target.ANTHROPIC
        case "mistral":
            return Target.MISTRAL
        case "google":
            return Target.GOOGLE
        case "vertex":
            return Target.VERTEX_CLAUDE if _model_of(spec).startswith("claude") else Target.VERTEX_GEMINI
        case "openai":
            return _openai_target(spec)


def _openai_target(spec: LLMSpec) -> Target:
    if spec.openai is not None and spec.openai.api_type != "OPEN_AI":
        return Target.AZURE
    base_url = (spec.parameters and spec.parameters.base_url) or OPENAI_URL
    return Target.OPENAI if is_openai_host(_host_of(base_url)) else Target.COMPATIBLE


def is_openai_host(host: str) -> bool:
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def _model_of(spec: LLMSpec) -> str:
    return (spec.parameters and spec.parameters.model) or ""


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # the API server and Python differ in what a URL is
        return ""
