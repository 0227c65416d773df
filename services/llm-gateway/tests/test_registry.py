from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from kubechain_common.api.v1alpha1 import LLM
from kubechain_llm_gateway.providers.anthropic_messages import AnthropicMessages
from kubechain_llm_gateway.providers.openai_chat import OpenAIChat
from kubechain_llm_gateway.providers.registry import ProviderRegistry


@pytest.mark.parametrize(("name", "kind"), [("openai", OpenAIChat), ("anthropic", AnthropicMessages)])
async def test_the_spec_chooses_the_provider(build_llm: Callable[..., LLM], name: str, kind: type) -> None:
    registry = ProviderRegistry()
    built = await registry.build(build_llm(provider=name).spec, "sk-1")
    assert isinstance(built, kind)
    await registry.aclose()


async def test_nothing_is_preloaded_for_what_is_not_supported(build_llm: Callable[..., LLM]) -> None:
    await ProviderRegistry().preload(build_llm(provider="mistral").spec)


async def test_an_unused_registry_closes() -> None:
    await ProviderRegistry().aclose()


def test_no_sdk_is_imported_before_an_llm_needs_it() -> None:
    code = (
        "import sys, kubechain_llm_gateway.gateway\n"
        "print([m for m in ('openai', 'anthropic', 'httpx2') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
