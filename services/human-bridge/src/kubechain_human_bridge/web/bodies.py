"""Reads the body of a request within bounds.

Anybody may send one: whether a request is signed can only be said of its whole body. So a body has to be there in some
seconds, and few large ones are read at a time. Small ones, all that people send but for long edits, never wait for
them.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import dataclass, field

from aiohttp import web

MAX_BODY = 1 << 20
"""Bytes."""

_SMALL = 32 * 1024
_LARGE_AT_ONCE = 32


@dataclass(frozen=True)
class BodyLimits:
    """Reads the bodies of one application's requests. ``patience`` is in seconds, for a body and for its turn to be
    read.
    """

    patience: float = 20.0
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_LARGE_AT_ONCE))


LIMITS = web.AppKey("LIMITS", BodyLimits)


async def receive(request: web.Request) -> bytes:
    """The body of a request. Raises HTTPRequestTimeout, HTTPRequestEntityTooLarge."""
    limits = request.app[LIMITS]
    try:
        async with asyncio.timeout(limits.patience), nullcontext() if _is_small(request) else limits.room:
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="The rest of the request did not arrive in time.") from None


def _is_small(request: web.Request) -> bool:
    return request.content_length is not None and request.content_length <= _SMALL
