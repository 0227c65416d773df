"""What HTTP servers answer, and what they tell besides."""

from __future__ import annotations

import math
from collections.abc import Mapping

import aiohttp

MAX_BODY = 1 << 20
"""Bytes of an answer; none of the APIs that we ask comes near."""

_LONGEST = 3600.0


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """``Retry-After`` in seconds, an hour at most; None where it is a date or nothing."""
    try:
        seconds = float(headers.get("Retry-After", ""))
    except ValueError:
        return None
    return min(max(seconds, 0.0), _LONGEST) if math.isfinite(seconds) else None


async def read_body(response: aiohttp.ClientResponse) -> bytes:
    """The whole body. Raises ClientPayloadError when it is longer than ``MAX_BODY``."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        body += chunk
        if len(body) > MAX_BODY:
            raise aiohttp.ClientPayloadError("the answer is too long")
    return bytes(body)


def describe_network_error(error: BaseException) -> str:
    """What went wrong, without the URL, which may hold a secret."""
    match error:
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate is not trusted"
        case aiohttp.ClientConnectorError():
            return error.strerror or type(error.os_error).__name__
    return type(error).__name__
