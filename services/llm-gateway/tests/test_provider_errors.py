from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_llm_gateway.admission.retry_policy import RetryPolicy
from kubechain_llm_gateway.providers.errors import (
    KeyRefusedError,
    ProviderError,
    RejectedRequestError,
    TransientProviderError,
    build_status_error,
    parse_retry_after,
)

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "Bad key."}}, "Bad key."),
        ({"message": "Bad key."}, "Bad key."),
        ({"error": "Bad key."}, "Bad key."),
        ({"detail": "Bad key."}, "Bad key."),
        (" Bad key. ", "Bad key."),
        ("<html><h1>502</h1></html>", "HTTP 502 Bad Gateway"),
        (None, "HTTP 502 Bad Gateway"),
        ({"error": {"message": None}}, "HTTP 502 Bad Gateway"),
        ({"detail": [{"loc": []}]}, "HTTP 502 Bad Gateway"),
    ],
)
def test_the_providers_sentence_is_found(body: Any, message: str) -> None:
    assert build_status_error(502, body, {}).message == message


def test_an_unknown_status_has_a_sentence_too() -> None:
    assert build_status_error(529, None, {}).message == "HTTP 529 no reason given"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RejectedRequestError),
        (401, KeyRefusedError),
        (403, KeyRefusedError),
        (404, RejectedRequestError),
        (408, TransientProviderError),
        (409, TransientProviderError),
        (413, RejectedRequestError),
        (422, RejectedRequestError),
        (425, TransientProviderError),
        (429, TransientProviderError),
        (500, TransientProviderError),
        (529, TransientProviderError),
    ],
)
def test_what_a_status_means(status: int, kind: type[ProviderError]) -> None:
    assert type(build_status_error(status, None, {})) is kind


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}},
        {"message": "You exceeded your current quota.", "type": "insufficient_quota", "code": None},
    ],
)
def test_a_used_up_quota_is_no_rate_limit(body: Any) -> None:
    error = build_status_error(429, body, {"retry-after": "5"})
    assert type(error) is RejectedRequestError
    assert (error.message, error.status_code) == ("You exceeded your current quota.", 429)


def test_a_long_sentence_is_cut_and_the_key_never_in_it() -> None:
    error = build_status_error(400, "k3y " * 2000, {}, secret="k3y")
    assert "k3y" not in error.message
    assert len(error.message) <= 2000


@given(st.integers(1, 200), st.none() | st.floats(0, 1e6), st.floats(0, 1, exclude_max=True))
def test_delays_grow_stay_bounded_and_honour_the_provider(attempt: int, asked: float | None, jitter: float) -> None:
    policy = RetryPolicy()
    delay = policy.delay(attempt, asked, lambda: jitter)
    assert min(2.0 ** (attempt - 1), 60) <= delay <= 1.25 * 900
    assert delay >= min(asked or 0, 900)


def test_the_last_attempt_is_the_tenth() -> None:
    assert [RetryPolicy().may_retry(n) for n in (1, 9, 10, 11)] == [True, True, False, False]
