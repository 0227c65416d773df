"""The three ways to a server, as transports for ``mcp.Client``: a child process, streamable HTTP, and HTTP with SSE.

Beside the SDK's streams each one fills a Watch in: whether the server has hung up (the SDK tells that only to the
next caller) and what there is to say about a failure. All resources belong to the transport's own context, so a
failed attempt leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import Context
from types import TracebackType
from typing import Self

import anyio
import httpx2
from mcp.client._transport import ReadStream, TransportStreams, WriteStream
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCRequest, JSONRPCResponse

from kubechain_mcp_host.connections.bounded_body import AS_IT_IS, bound_bodies
from kubechain_mcp_host.connections.request_backlog import RequestBacklog
from kubechain_mcp_host.connections.sse_client import run_sse_client
from kubechain_mcp_host.spec.connection_spec import ConnectionSpec
from kubechain_mcp_host.stdio.guard_report import GuardReport
from kubechain_mcp_host.stdio.launch import StdioLauncher
from kubechain_mcp_host.stdio.message_reader import MAX_BYTES
from kubechain_mcp_host.stdio.process import run_stdio_server
from kubechain_mcp_host.stdio.stderr_tail import StderrTail

_Item = SessionMessage | Exception
HTTP_CONNECT_SECONDS = 30.0
KEEP_ALIVE_SECONDS = 2.0
"""Servers close idle connections, many after five seconds: a call that is sent on one in that moment may have run."""


class Watch:
    """What is known of one connection from outside the SDK."""

    def __init__(self, on_close: Callable[[], None]) -> None:
        self.closed = False
        self.report = GuardReport()
        self.stderr: StderrTail | None = None
        self.http_status: int | None = None
        self._on_close = on_close
        self._flood = ""

    def mark_closed(self) -> None:
        if not self.closed:
            self.closed = True
            self._on_close()

    def wake(self) -> None:
        """Makes the owner look at its connection."""
        self._on_close()

    def note_flood(self, what: str) -> None:
        """Notes why the connection ends: ``what`` goes on a sentence that begins with the server."""
        self._flood = what

    @property
    def reason(self) -> str:
        """A sentence if we, or the guard, had to end the connection; empty otherwise."""
        if self._flood:
            return f"the server {self._flood}."
        report = self.report.text()
        return f"{report}." if report else ""

    @property
    def last_words(self) -> str:
        """The tail of a server's stderr; empty for HTTP."""
        return "" if self.stderr is None else self.stderr.text()

    async def note_status(self, response: httpx2.Response) -> None:
        """Response hook: the SDK has the same words for every HTTP error, and the status tells them apart."""
        if response.request.method == "POST":
            self.http_status = response.status_code


class _WatchedStream:
    """The SDK's read stream, which tells its Watch when it ends, and ends when the server asks for too much."""

    def __init__(self, inner: ReadStream[_Item], watch: Watch, backlog: RequestBacklog) -> None:
        self._inner = inner
        self._watch = watch
        self._backlog = backlog

    @property
    def last_context(self) -> Context | None:
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> _Item:
        try:
            return self._admit(await self._inner.receive())
        except BaseException:
            self._watch.mark_closed()
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Item:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(exc_type, exc, traceback)

    def _admit(self, item: _Item) -> _Item:
        if isinstance(item, SessionMessage) and isinstance(item.message, JSONRPCRequest):
            excess = self._backlog.note(item.message)
            if excess:
                self._watch.note_flood(excess)
                raise anyio.EndOfStream
        return item


class _WatchedSender:
    """The SDK's write stream, with an eye on the answers that wait there."""

    def __init__(self, inner: WriteStream[SessionMessage], backlog: RequestBacklog) -> None:
        self._inner = inner
        self._backlog = backlog

    async def send(self, item: SessionMessage, /) -> None:
        answers = isinstance(item.message, JSONRPCResponse | JSONRPCError)
        with self._backlog.answering() if answers else nullcontext():
            await self._inner.send(item)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(exc_type, exc, traceback)


@asynccontextmanager
async def _watched(
    inner: AbstractAsyncContextManager[TransportStreams], watch: Watch
) -> AsyncIterator[TransportStreams]:
    try:
        async with inner as (read, write):
            backlog = RequestBacklog()
            yield _WatchedStream(read, watch, backlog), _WatchedSender(write, backlog)
    finally:
        watch.mark_closed()


@asynccontextmanager
async def stdio_transport(
    spec: ConnectionSpec, launcher: StdioLauncher, watch: Watch
) -> AsyncIterator[TransportStreams]:
    """Starts the server under the guard. Raises ConnectFailedError when it can not be."""
    launch = await launcher.prepare(spec)
    watch.stderr = StderrTail()
    with watch.report.pipe() as report:
        async with (
            watch.stderr.pipe() as child_stderr,
            _watched(run_stdio_server(launch, report, child_stderr, watch.note_flood), watch) as streams,
        ):
            child_stderr.close()
            yield streams


@asynccontextmanager
async def streamable_http_transport(spec: ConnectionSpec, watch: Watch) -> AsyncIterator[TransportStreams]:
    async with (
        _http_client(spec, watch, streaming=("GET", "POST")) as client,
        _watched(streamable_http_client(spec.url, http_client=client, max_sse_event_size=MAX_BYTES), watch) as streams,
    ):
        yield streams


@asynccontextmanager
async def sse_transport(spec: ConnectionSpec, watch: Watch) -> AsyncIterator[TransportStreams]:
    async with (
        _http_client(spec, watch, streaming=("GET",)) as client,
        _watched(run_sse_client(client, spec.url, watch.note_flood), watch) as streams,
    ):
        yield streams


def _http_client(spec: ConnectionSpec, watch: Watch, *, streaming: Collection[str]) -> httpx2.AsyncClient:
    headers = httpx2.Headers(dict(spec.headers))
    headers["accept-encoding"] = AS_IT_IS
    # No read timeout: event streams are silent for as long as nothing happens, and every call has a deadline of its
    # own.
    return httpx2.AsyncClient(
        headers=headers,
        timeout=httpx2.Timeout(HTTP_CONNECT_SECONDS, read=None),
        # How many calls run at a time others decide; none is to wait for a connection here.
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=KEEP_ALIVE_SECONDS),
        event_hooks={"response": [watch.note_status, bound_bodies(streaming)]},
    )
