"""What HTTP servers tell besides their answers. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

import aiohttp

_LONGEST = 3600.0


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """``Retry-After`` in seconds, an hour at most; None where it is a date or nothing."""
    try:
        seconds = float(headers.get("Retry-After", ""))
    except ValueError:
        return None
    return min(max(seconds, 0.0), _LONGEST) if math.isfinite(seconds) else None


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
