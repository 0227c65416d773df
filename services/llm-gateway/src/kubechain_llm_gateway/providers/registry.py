"""Which provider serves an LLM.

An SDK costs 40 MB and more than a second to import, so its module is imported when the first LLM needs it, in a thread.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

from kubechain_common.api.v1alpha1.llm import LLMSpec
from kubechain_llm_gateway.providers.base import Provider

_PACKAGE = "kubechain_llm_gateway.providers"
_CLASSES = {"openai": ("openai_chat", "OpenAIChat"), "anthropic": ("anthropic_messages", "AnthropicMessages")}

SUPPORTED = frozenset(_CLASSES)


class ProviderRegistry:
    """Builds providers over one shared connection pool."""

    def __init__(self) -> None:
        self._pool: Any = None  # HTTPPool, which is not imported before it is needed either
        self._importing = asyncio.Lock()

    async def preload(self, spec: LLMSpec) -> None:
        """Import what the LLM will need, if it is supported at all."""
        if spec.provider in SUPPORTED:
            await self._load(spec.provider)

    async def build(self, spec: LLMSpec, api_key: str | None) -> Provider:
        """A client for the LLM; ``spec.provider`` must be in ``SUPPORTED``."""
        cls = await self._load(spec.provider)
        provider: Provider = cls(spec, api_key, self._pool)
        return provider

    async def _load(self, provider: str) -> Any:
        module, name = _CLASSES[provider]
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
