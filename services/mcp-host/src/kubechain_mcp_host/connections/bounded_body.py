"""Keeps an HTTP server from filling our memory with one answer, whatever kind of answer it says that it is.

What is read as a stream of events is bounded event by event, where it is read; everything else has a bound as a whole,
the bodies of redirects and errors too. Answers have to come as they are: a few bytes of an encoding can stand for
gigabytes, and those of several around each other for years of decoding. Nobody has to encode what he is asked not to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection

import httpx2

from kubechain_mcp_host.stdio.message_reader import MAX_BYTES

AS_IT_IS = "identity"
"""For Accept-Encoding."""


def bound_bodies(streaming: Collection[str]) -> Callable[[httpx2.Response], Awaitable[None]]:
    """A response hook; ``streaming`` are the methods whose answers may be read as streams of events."""

    async def bound(response: httpx2.Response) -> None:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        encoding = response.headers.get("content-encoding", AS_IT_IS).strip().lower()
        if encoding not in ("", AS_IT_IS):
            response.stream = _RefusedStream(response.stream, encoding)
        elif not (response.request.method in streaming and _is_event_stream(response)):
            response.stream = _BoundedStream(response.stream, MAX_BYTES)
        else:
            response.encoding = "utf-8"  # of events always, whatever else its headers say

    return bound


def _is_event_stream(response: httpx2.Response) -> bool:
    return response.is_success and response.headers.get("content-type", "").lower().startswith("text/event-stream")


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


class _RefusedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, encoding: str) -> None:
        self._inner = inner
        self._encoding = encoding

    async def __aiter__(self) -> AsyncIterator[bytes]:
        raise httpx2.StreamError(f"the answer is encoded ({self._encoding[:40]}), though it was asked for as it is")
        yield b""

    async def aclose(self) -> None:
        await self._inner.aclose()
