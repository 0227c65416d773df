"""Which provider serves an LLM.

An SDK costs 40 MB and more than a second to import, so its module is imported when the first LLM needs it, in a thread.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

from kubechain_common.api.v1alpha1.llm import LLMSpec
from kubechain_llm_gateway.providers.base import Provider
from kubechain_llm_gateway.providers.wire_target import Target, target_of

_PACKAGE = "kubechain_llm_gateway.providers"
_CLASSES = {
    Target.OPENAI: ("openai_chat", "OpenAIChat"),
    Target.COMPATIBLE: ("openai_chat", "OpenAIChat"),
    Target.AZURE: ("azure_chat", "AzureChat"),
    Target.ANTHROPIC: ("anthropic_messages", "AnthropicMessages"),
    Target.MISTRAL: ("mistral_chat", "MistralChat"),
    Target.GOOGLE: ("google_chat", "GoogleChat"),
    Target.VERTEX_GEMINI: ("vertex_gemini", "VertexGemini"),
    Target.VERTEX_CLAUDE: ("vertex_claude", "VertexClaude"),
}


class ProviderRegistry:
    """Builds providers over one shared connection pool."""

    def __init__(self) -> None:
        self._pool: Any = None  # HTTPPool, which is not imported before it is needed either
        self._importing = asyncio.Lock()

    async def preload(self, spec: LLMSpec) -> None:
        """Import what the LLM will need."""
        await self._load(target_of(spec))

    async def build(self, spec: LLMSpec, api_key: str | None) -> Provider:
        """A client for the LLM, whose spec was checked."""
        cls = await self._load(target_of(spec))
        provider: Provider = cls(spec, api_key, self._pool)
        return provider

    async def _load(self, target: Target) -> Any:
        module, name = _CLASSES[target]
        async with self._importing:
            transport = await _import_module("transport")
            cls = getattr(await _import_module(module), name)
            if self._pool is None:
                self._pool = transport.HTTPPool()
        return cls

    async def aclose(self) -> None:
        """Close the pool; calls under way fail."""
        if self._pool is not None:
            await self._pool.aclose()


async def _import_module(name: str) -> Any:
    return await asyncio.to_thread(importlib.import_module, f"{_PACKAGE}.{name}")
