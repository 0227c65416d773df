"""The counts that providers really send, and those that they should not."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kubechain_common.api.v1alpha1.conversation import TokenUsage
from kubechain_llm_gateway.protocols.wire_usage import parse_anthropic_usage, parse_openai_usage


@pytest.mark.parametrize(
    ("usage", "wire"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}, {}),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 2,
                "total_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 1},
            },
            {"cachedInputTokens": 4, "reasoningTokens": 1},
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "prompt_cache_hit_tokens": 3, "prompt_tokens_details": None},
            {"cachedInputTokens": 3},
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cache_write_tokens": 5}},
            {"cacheWriteTokens": 5},
        ),
        ({"prompt_tokens": 5.0, "completion_tokens": 2, "completion_tokens_details": "none"}, {}),
    ],
)
def test_chat_completions_counts(usage: dict[str, Any], wire: dict[str, int]) -> None:
    assert parse_openai_usage(usage).to_wire() == {"inputTokens": 5, "outputTokens": 2, "totalTokens": 7, **wire}


def test_messages_counts_what_the_cache_gave_as_input() -> None:
    usage = {
        "input_tokens": 1,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 10,
        "output_tokens": 5,
        "output_tokens_details": {"thinking_tokens": 3},
    }
    assert parse_anthropic_usage(usage) == TokenUsage(
        input_tokens=111,
        output_tokens=5,
        total_tokens=116,
        cached_input_tokens=100,
        cache_write_tokens=10,
        reasoning_tokens=3,
    )


@pytest.mark.parametrize("count", [math.inf, -math.inf, math.nan, -3, 10**30, "7", None, [], {}])
def test_what_is_no_count_counts_as_none(count: Any) -> None:
    assert parse_openai_usage({"prompt_tokens": count, "completion_tokens": 1}).to_wire()["totalTokens"] == 1
    assert parse_anthropic_usage({"input_tokens": count, "output_tokens": 1}).to_wire()["totalTokens"] == 1


@pytest.mark.parametrize("usage", [None, [], "x", 3])
def test_a_reply_without_usage_counts_nothing(usage: Any) -> None:
    assert parse_openai_usage(usage) == parse_anthropic_usage(usage) == TokenUsage()
