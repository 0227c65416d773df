"""The token counts in a reply, of either protocol. Pure; a count that is no number counts as none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubechain_common.api.v1alpha1.conversation import TokenUsage

_MOST = 2**53


def parse_openai_usage(usage: Any, *, thoughts_beside: bool = False) -> TokenUsage:
    """``usage`` of Chat Completions.

    DeepSeek tells what its cache gave as ``prompt_cache_hit_tokens``, Mistral as ``num_cached_tokens``, the others in
    ``prompt_tokens_details``. ``thoughts_beside``: the server counts thoughts, which are paid for like output, in the
    total only.
    """
    if not isinstance(usage, Mapping):
        return TokenUsage()
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    total = _count(usage.get("total_tokens")) or prompt + completion
    thoughts = _first(_mapping(usage.get("completion_tokens_details")).get("reasoning_tokens"))
    if thoughts_beside and total > prompt + completion:
        thoughts, completion = total - prompt - completion, total - prompt
    told = _mapping(usage.get("prompt_tokens_details"))
    cached = (told.get("cached_tokens"), usage.get("prompt_cache_hit_tokens"), usage.get("num_cached_tokens"))
    return TokenUsage(
        input_tokens=prompt,
        output_tokens=completion,
        total_tokens=total,
        cached_input_tokens=_first(*cached),
        cache_write_tokens=_first(told.get("cache_write_tokens")),
        reasoning_tokens=thoughts,
    )


def parse_anthropic_usage(usage: Any) -> TokenUsage:
    """``usage`` of Messages, which counts input from the cache and into it beside ``input_tokens``, not within."""
    if not isinstance(usage, Mapping):
        return TokenUsage()
    read, written = _first(usage.get("cache_read_input_tokens")), _first(usage.get("cache_creation_input_tokens"))
    prompt = _count(usage.get("input_tokens")) + (read or 0) + (written or 0)
    output = _count(usage.get("output_tokens"))
    return TokenUsage(
        input_tokens=prompt,
        output_tokens=output,
        total_tokens=prompt + output,
        cached_input_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=_first(_mapping(usage.get("output_tokens_details")).get("thinking_tokens")),
    )


def _first(*values: Any) -> int | None:
    return next((_count(value) for value in values if isinstance(value, int | float)), None)


def _count(value: Any) -> int:
    """The number, within what a status can hold; servers write floats, and Python's JSON reads NaN and Infinity."""
    return int(value) if isinstance(value, int | float) and 0 <= value <= _MOST else 0


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
