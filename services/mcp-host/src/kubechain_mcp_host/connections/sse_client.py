"""A server of HTTP with SSE as a pair of streams for ``mcp.Client``: it answers in one stream of events, for as long as
the connection lasts, and is sent messages at an endpoint that its first event names.

In place of the SDK's ``sse_client``, whose events may have 1 MiB and no more: a larger result would end the connection
with every call on it. Redirects are followed as everywhere in the SDK, and the endpoint has to be of the server's own
origin, because credentials go along with each message.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urljoin, urlsplit

import anyio
import httpx2
from anyio.abc import TaskStatus
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.shared._httpx_utils import request_within_origin, sse_within_origin
from mcp.shared.message import SessionMessage

from kubechain_mcp_host.errors import ConnectFailedError
from kubechain_mcp_host.stdio.message_reader import MAX_BYTES, parse_message

POST_SECONDS = 300.0
"""For a message to be taken; some servers do what they are asked before they say that they have been."""
_GONE = (anyio.ClosedResourceError, anyio.BrokenResourceError)


@asynccontextmanager
async def run_sse_client(
    client: httpx2.AsyncClient, url: str, on_flood: Callable[[str], None]
) -> AsyncIterator[TransportStreams]:
    """``on_flood`` gets the end of a sentence when a message has broken all bounds, or is not taken; the stream ends
    then.
    """
    async with sse_within_origin(client, url, max_event_size=MAX_BYTES) as events:
        events.response.raise_for_status()
        to_session, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        sent, from_session = anyio.create_memory_object_stream[SessionMessage](0)
        async with to_session, received, sent, from_session, anyio.create_task_group() as group:
            endpoint: str = await group.start(_read, events, url, to_session, on_flood)
            group.start_soon(_write, client, endpoint, from_session, to_session, on_flood)
            try:
                yield received, sent
            finally:
                group.cancel_scope.cancel()


async def _read(
    events: httpx2.EventSource,
    url: str,
    to_session: MemoryObjectSendStream[SessionMessage | Exception],
    on_flood: Callable[[str], None],
    *,
    task_status: TaskStatus[str],
) -> None:
    endpoint = ""
    async with to_session:
        try:
            async for event in events:
                if event.event == "endpoint" and not endpoint:
                    endpoint = _resolve(url, event.data)
                    task_status.started(endpoint)
                elif event.event == "message":
                    message = parse_message(event.data.encode())
                    if message is not None:
                        await to_session.send(SessionMessage(message))
        except _GONE:
            pass  # the session has gone
        except httpx2.HTTPError as error:
            if not endpoint:
                raise
            if isinstance(error, httpx2.SSEError):
                on_flood(f"sent more than {MAX_BYTES:,} bytes in one message")


def _resolve(url: str, endpoint: str) -> str:
    resolved = urljoin(url, endpoint)
    if urlsplit(resolved)[:2] != urlsplit(url)[:2]:
        raise ConnectFailedError("the server wants its messages sent to another host.")
    return resolved


async def _write(
    client: httpx2.AsyncClient,
    endpoint: str,
    from_session: MemoryObjectReceiveStream[SessionMessage],
    to_session: MemoryObjectSendStream[SessionMessage | Exception],
    on_flood: Callable[[str], None],
) -> None:
    """One after another, so that messages arrive in their order."""
    try:
        async with from_session:
            async for item in from_session:
                body = item.message.model_dump(by_alias=True, mode="json", exclude_unset=True)
                with anyio.fail_after(POST_SECONDS):
                    response = await request_within_origin(client, "POST", endpoint, json=body)
                response.raise_for_status()
    except (httpx2.HTTPError, httpx2.StreamError, TimeoutError) as error:
        if isinstance(error, TimeoutError):
            on_flood(f"did not take a message within {POST_SECONDS:g} seconds")
        # The stream of events may go on: the session has to learn that nobody hears it.
        with suppress(*_GONE):
            await to_session.aclose()
