"""Live changes as Server-Sent Events: what arrives for this user, and what is settled.

https://html.spec.whatwg.org/multipage/server-sent-events.html
A stream ends with its session. It begins with ``hello``, upon which the page reads its list: what changes from then
on is told. The right to see a namespace is looked at for every event.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
from aiohttp import web

from kubechain_common.kube.errors import KubeError
from kubechain_common.runtime.clock import now
from kubechain_human_bridge.web.inbox.board import Board, Follower, News
from kubechain_human_bridge.web.inbox.entries import Json, describe_answer, describe_call
from kubechain_human_bridge.web.inbox.responses import SECURITY_HEADERS, Refusal
from kubechain_human_bridge.web.inbox.rights import Rights
from kubechain_human_bridge.web.inbox.sessions import Session
from kubechain_human_bridge.web.inbox.surroundings import Surroundings

MAX_STREAMS = 256
MAX_STREAMS_OF_USER = 8
HEARTBEAT_SECONDS = 15.0
RETRY = b"retry: 1000\n\n"
"""Milliseconds after which a browser comes back when the stream broke."""


class Streams:
    """Serves ``/api/v1/events`` to as many as one process bears."""

    def __init__(self, board: Board, rights: Rights, surroundings: Surroundings) -> None:
        self._board = board
        self._rights = rights
        self._surroundings = surroundings
        self._open: Counter[str] = Counter()

    async def serve(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Returns when the session, or the connection, has ended. Raises Refusal when there are too many."""
        with self._place(session.user.name), self._board.follow() as follower:
            response = web.StreamResponse(headers={**SECURITY_HEADERS, "Cache-Control": "no-store"})
            response.content_type = "text/event-stream"
            response.headers["X-Accel-Buffering"] = "no"
            await response.prepare(request)
            try:
                await response.write(RETRY + build_event("hello", {}))
                await self._tell(response, session, follower)
            except (ConnectionResetError, ConnectionError):
                pass  # the reader left
        return response

    async def _tell(self, response: web.StreamResponse, session: Session, follower: Follower) -> None:
        while (left := (session.expires_at - now()).total_seconds()) > 0:
            try:
                async with asyncio.timeout(min(left, HEARTBEAT_SECONDS)):
                    news = await follower.next()
            except TimeoutError:
                await response.write(b": still here\n\n")
                continue
            event = await self._describe(session, news)
            if event is not None:
                await response.write(event)
        await response.write(build_event("expired", {}))

    async def _describe(self, session: Session, news: News) -> bytes | None:
        if news.call is None:
            return build_event("hello", {})
        try:
            if not await self._rights.may_see(session.user, news.call.namespace):
                return None
            if news.kind == "arrived":
                return build_event("arrived", await self._surroundings.describe(news.call))
        except KubeError:  # whatever it was, the page finds out by looking anew
            return build_event("hello", {})
        ended = "" if news.call.spec.cancel is not True else "It was cancelled."
        return build_event("left", describe_call(news.call) | {"answer": describe_answer(news.call), "ended": ended})

    @contextmanager
    def _place(self, user: str) -> Iterator[None]:
        if self._open.total() >= MAX_STREAMS or self._open[user] >= MAX_STREAMS_OF_USER:
            raise Refusal(503, "Too many pages are open. Close one, or reload from time to time.")
        self._open[user] += 1
        try:
            yield
        finally:
            self._open[user] -= 1
            if not self._open[user]:
                del self._open[user]


def build_event(kind: str, data: Json) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"
