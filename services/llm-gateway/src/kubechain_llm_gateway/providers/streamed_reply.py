"""Reads the body of an answer that was asked for as a stream, whether it is one or not.

Some servers do not stream though they were asked to, some give a stream another content type, and some give JSON the
content type of a stream: the body itself decides.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import httpx2

from kubechain_llm_gateway.protocols.sse import ReplyAccumulator, SSEParser, looks_like_events
from kubechain_llm_gateway.providers.base import OnDelta

LINGER = 0.05
"""Seconds to wait for the connection's end after the reply's, so that the next call finds it fit for use."""

_NO_EVENT = (b"{", b"[", b"<")


class BrokenOffError(Exception):
    """The stream ended before the reply did."""


class StreamedReply:
    """One reply on its way in."""

    def __init__(self, accumulator: ReplyAccumulator, on_delta: OnDelta | None) -> None:
        self._accumulator = accumulator
        self._on_delta = on_delta
        self._parser = SSEParser()
        self._begun = False

    async def read(self, response: httpx2.Response, bound: asyncio.Timeout) -> bytes | None:
        """Read to the end; returns the body if it is no event stream, else None, and then the accumulator has it all.

        ``bound`` ends the reading; it is brought forward once the reply is there. A ValueError is an event that is
        none.

        Raises:
            FailureInStreamError, BrokenOffError, ValueError, httpx2.RequestError
        """
        body = bytearray()
        streamed = "event-stream" in response.headers.get("content-type", "")
        async for chunk in response.aiter_bytes():
            if streamed and not self._begun:
                streamed = not chunk.lstrip().startswith(_NO_EVENT)
                self._begun = bool(chunk.strip())
            if not streamed:
                body += chunk
                continue
            self._take(self._parser.feed(chunk))
            if self._accumulator.ended:
                _bring_forward(bound)
        if not streamed:
            if not looks_like_events(bytes(body)):
                return bytes(body)
            self._take(self._parser.feed(bytes(body)))
        with suppress(ValueError):  # half an event
            self._take(self._parser.finish())
        if not self._accumulator.complete:
            raise BrokenOffError
        return None

    def build(self) -> Any:
        """The reply, from an accumulator that is complete."""
        return self._accumulator.build_reply()

    @property
    def complete(self) -> bool:
        return self._accumulator.complete

    def _take(self, events: list[bytes]) -> None:
        text = "".join([self._accumulator.add(data) for data in events])
        if self._on_delta is not None:
            self._on_delta(text)


def _bring_forward(bound: asyncio.Timeout) -> None:
    soon, when = asyncio.get_running_loop().time() + LINGER, bound.when()
    if when is None or soon < when:
        bound.reschedule(soon)
