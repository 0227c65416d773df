from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from kubechain_common.api.v1alpha1 import LLM
from kubechain_llm_gateway.providers.anthropic_messages import AnthropicMessages
from kubechain_llm_gateway.providers.azure_chat import AzureChat
from kubechain_llm_gateway.providers.google_chat import GoogleChat
from kubechain_llm_gateway.providers.mistral_chat import MistralChat
from kubechain_llm_gateway.providers.openai_chat import OpenAIChat
from kubechain_llm_gateway.providers.registry import ProviderRegistry
from kubechain_llm_gateway.providers.vertex_claude import VertexClaude
from kubechain_llm_gateway.providers.vertex_gemini import VertexGemini

VERTEX = {"cloudProject": "p", "cloudLocation": "us-central1"}


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ({"provider": "openai"}, OpenAIChat),
        ({"provider": "openai", "parameters": {"model": "m", "baseUrl": "http://llm"}}, OpenAIChat),
        (
            {
                "provider": "openai",
                "openai": {"apiType": "AZURE"},
                "parameters": {"model": "m", "baseUrl": "http://llm"},
            },
            AzureChat,
        ),
        ({"provider": "anthropic"}, AnthropicMessages),
        ({"provider": "mistral"}, MistralChat),
        ({"provider": "google"}, GoogleChat),
        ({"provider": "vertex", "vertex": VERTEX}, VertexGemini),
        ({"provider": "vertex", "vertex": VERTEX, "parameters": {"model": "claude-opus-4-6"}}, VertexClaude),
    ],
)
async def test_the_spec_chooses_the_provider(build_llm: Callable[..., LLM], spec: dict[str, Any], kind: type) -> None:
    registry = ProviderRegistry()
    llm = build_llm(**spec)
    await registry.preload(llm.spec)
    built = await registry.build(llm.spec, "sk-1")
    assert type(built) is kind
    await registry.aclose()


async def test_an_unused_registry_closes() -> None:
    await ProviderRegistry().aclose()


def test_no_sdk_is_imported_before_an_llm_needs_it() -> None:
    code = (
        "import sys, kubechain_llm_gateway.gateway\n"
        "print([m for m in ('openai', 'anthropic', 'httpx2', 'google.auth') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
