"""Keeps an HTTP server from filling our memory with one JSON answer; events of a stream are bounded by the SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

from kubechain_mcp_host.message_reader import MAX_BYTES


async def bound_body(response: httpx2.Response) -> None:
    """Response hook."""
    if response.headers.get("content-type", "").lower().startswith("application/json"):
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _BoundedStream(response.stream, MAX_BYTES)


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, limit: int) -> None:
        self._inner = inner
        self._left = limit
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            self._left -= len(chunk)
            if self._left < 0:
                # The kind that the SDK turns into the failure of this one request.
                raise httpx2.StreamError(f"the answer has more than {self._limit:,} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
