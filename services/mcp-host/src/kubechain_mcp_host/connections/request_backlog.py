"""How much a server may ask of us without taking our answers.

Each request of a server is held, with a task of the SDK's, until its answer is written. A server that asks and asks
and never reads would fill our memory with that. To read no more from it would not do: it may be about to read once it
has written what we do not take.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from mcp_types import JSONRPCRequest

from kubechain_mcp_host.stdio.message_reader import MAX_BYTES

MAX_REQUESTS = 1000


class RequestBacklog:
    """The requests whose answers are still to be written; answers come in about the order of the requests.

    One that the server takes back in time is never answered, so when no answer waits to be written there is none.
    """

    def __init__(self) -> None:
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._answering = 0

    def note(self, request: JSONRPCRequest) -> str:
        """The end of a sentence if this one is too many; else empty."""
        if not self._answering:
            self._sizes.clear()
            self._bytes = 0
        size = _size(request)
        self._sizes.append(size)
        self._bytes += size
        count = len(self._sizes)
        # One alone may be as large as any message.
        if count > MAX_REQUESTS or (count > 1 and self._bytes > MAX_BYTES):
            return f"sent {count:,} requests, of {self._bytes:,} bytes, and took no answer to them"
        return ""

    @contextmanager
    def answering(self) -> Iterator[None]:
        """While an answer is written."""
        self._answering += 1
        try:
            yield
        finally:
            self._answering -= 1
            if self._sizes:
                self._bytes -= self._sizes.popleft()


def _size(request: JSONRPCRequest) -> int:
    try:
        return len(request.model_dump_json())
    except (ValueError, RecursionError):  # nested more deeply than it can be written
        return MAX_BYTES
