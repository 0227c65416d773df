"""What can go wrong between us and a provider.

    ProviderError                   has ``message`` (a sentence), ``status_code``, ``retryable``, ``retry_after``
    +-- KeyRefusedError             401, 403: the key is wrong, revoked or may not do this
    +-- RejectedRequestError        any other 4xx: the same request would be refused again; a used-up quota, too
    |   +-- StreamRefusedError      it names the streaming; the same request without it may pass
    +-- TransientProviderError      408, 409, 425, 429 and 5xx (529 too): the same request may succeed later
    +-- UnreachableProviderError    no answer, or half of one: DNS, TCP, TLS, time-out, a broken connection
    +-- BrokenReplyError            an answer that is not the JSON it should be; retried
    +-- UnusableReplyError          a well-formed answer that is of no use: it says nothing, or is over our limits

A message is the provider's own sentence where it sent one, without the API key should the provider have quoted it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError

from kubechain_common.api.unicode_text import mend
from kubechain_common.api.v1alpha1.status import shorten

_MAX_MESSAGE = 2000
_RETRYABLE_4XX = frozenset({408, 409, 425, 429})
_QUOTA_USED_UP = "insufficient_quota"
"""OpenAI sends it with 429, but no time to wait changes it: somebody has to pay."""
_STREAM_STATUSES = frozenset({400, 422, 501})
_STREAM_WORDS = re.compile(r"\b(stream_options|stream(?:ing|ed)?)\b")
_KEY_INVALID = "API_KEY_INVALID"
_KNOWN_STATUSES = frozenset(int(status) for status in HTTPStatus)


class ProviderError(Exception):
    """A call that gave no answer. ``retry_after`` is in seconds, as the provider asked for it."""

    retryable = False

    def __init__(self, message: str, *, status_code: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.retry_after = retry_after


class KeyRefusedError(ProviderError):
    """The provider does not accept the API key."""


class RejectedRequestError(ProviderError):
    """The provider will not answer this request, however often it is sent."""


class StreamRefusedError(RejectedRequestError):
    """The request may be refused only because it asks for a stream; ``field`` is what the refusal names."""

    field = "stream"


class TransientProviderError(ProviderError):
    """The provider is overloaded, limits the rate or failed."""

    retryable = True


class UnreachableProviderError(ProviderError):
    """The provider did not answer."""

    retryable = True


class BrokenReplyError(ProviderError):
    """The provider answered with something that is no reply of its API."""

    retryable = True


class UnusableReplyError(ProviderError):
    """The model answered, but nothing that can be passed on."""


def over_our_limits(what: str) -> UnusableReplyError:
    """The answer is none that a context window takes. ``what`` says why, and repeats nothing that the answer holds."""
    return UnusableReplyError(f"the model's answer is over our limits: {what}")


def describe_limit(error: ValidationError) -> str:
    """The first field that a context window does not take, and why."""
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def scrub(text: str, secret: str | None) -> str:
    """The text without the secret."""
    return text.replace(secret, "***") if secret else text


def build_status_error(
    status: int, body: object, headers: Mapping[str, str], *, secret: str | None = None
) -> ProviderError:
    """The error for an HTTP answer with a status of 400 or more."""
    message = shorten(mend(scrub(_message_of(status, body), secret)), _MAX_MESSAGE)
    retry_after = parse_retry_after(headers, datetime.now(UTC))
    kind: type[ProviderError]
    if status in (401, 403) or _is_key_invalid(body):
        kind = KeyRefusedError
    elif (status >= 500 or status in _RETRYABLE_4XX) and not _is_quota_used_up(body):
        kind = TransientProviderError
    else:
        kind = RejectedRequestError
    return kind(message, status_code=status, retry_after=retry_after)


def build_stream_error(error: ProviderError, body: object) -> ProviderError:
    """The same error; a StreamRefusedError if the answer to a request for a stream names that wish.

    ``body`` is looked at as a whole, because some servers name a field elsewhere than in their sentence.
    """
    words = _STREAM_WORDS.findall(str(body)) if error.status_code in _STREAM_STATUSES else []
    if not words:
        return error
    refused = StreamRefusedError(error.message, status_code=error.status_code, retry_after=error.retry_after)
    refused.field = "stream_options" if "stream_options" in words else "stream"
    return refused


def _is_quota_used_up(body: object) -> bool:
    if not isinstance(body, Mapping):
        return False
    return _QUOTA_USED_UP in (body.get("code"), body.get("type")) or _is_quota_used_up(body.get("error"))


def _is_key_invalid(body: object) -> bool:
    """Google's API for Gemini answers 400 to a key that it does not know."""
    if isinstance(body, list):
        return any(_is_key_invalid(item) for item in body)
    if not isinstance(body, Mapping):
        return False
    return body.get("reason") == _KEY_INVALID or _is_key_invalid(body.get("error") or body.get("details"))


def parse_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait by ``retry-after-ms`` or ``Retry-After`` (seconds or an HTTP date).

    None when absent or unreadable.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    millis = _non_negative(lowered.get("retry-after-ms"))
    if millis is not None:
        return millis / 1000
    value = lowered.get("retry-after")
    if value is None:
        return None
    seconds = _non_negative(value)
    if seconds is not None:
        return seconds
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - now).total_seconds())


def _non_negative(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None


def _message_of(status: int, body: object) -> str:
    """The sentence in the body: ``{"error": {"message": ..}}`` or a part of it, ``{"detail": ..}``, plain text."""
    found = _find_message(body)
    if found:
        return found
    phrase = HTTPStatus(status).phrase if status in _KNOWN_STATUSES else "no reason given"
    return f"HTTP {status} {phrase}"


def _find_message(body: Any) -> str:
    if isinstance(body, Mapping):
        for field in ("error", "message", "detail"):
            found = _find_message(body.get(field))
            if found:
                return found
        return ""
    if isinstance(body, list):  # Google's
        return next(filter(None, map(_find_message, body)), "")
    if isinstance(body, str) and not body.lstrip().startswith("<"):  # an HTML page is nothing a status line can show
        return body.strip()
    return ""
