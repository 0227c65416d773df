"""One attempt to open a connection: pick the transport, do the MCP handshake, and explain what went wrong if it did."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

from mcp import Client
from mcp.client import Transport
from mcp.client.session import MessageHandlerFnT
from mcp_types import CallToolResult, Implementation, ServerNotification, ToolListChangedNotification

from kubechain_mcp_host.connections.failure import describe_failure
from kubechain_mcp_host.connections.transports import Watch, sse_transport, stdio_transport, streamable_http_transport
from kubechain_mcp_host.spec.connection_spec import ConnectionSpec
from kubechain_mcp_host.stdio.launch import StdioLauncher

_SPEAKS_SSE_ONLY = (400, 404, 405)
"""https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#backwards-compatibility"""

_CLIENT_INFO = Implementation(name="kubechain-mcp-host", version="0.1.0")


async def _accept(name: str, result: CallToolResult) -> None:
    """Accepts a result, in place of the SDK's check of it."""


class Attempt:
    """One attempt, to be used once. ``on_close`` is called when the server hangs up, ``on_tools_changed`` when it says
    that its tools have changed.
    """

    def __init__(
        self,
        spec: ConnectionSpec,
        launcher: StdioLauncher,
        *,
        on_close: Callable[[], None],
        on_tools_changed: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.scrubber = spec.build_scrubber()
        self._launcher = launcher
        self._on_close = on_close
        self._on_tools_changed = on_tools_changed
        self.watch = Watch(on_close)

    async def open(self, stack: AsyncExitStack) -> Client:
        """An initialized client, which ``stack`` closes."""
        if self.spec.transport == "stdio":
            return await self._enter(stack, stdio_transport(self.spec, self._launcher, self.watch))
        try:
            return await self._enter(stack, streamable_http_transport(self.spec, self.watch))
        except Exception as error:
            if self.watch.http_status not in _SPEAKS_SSE_ONLY:
                raise
            first, refused = self.watch, error
        self.watch = Watch(self._on_close)
        try:
            # SSE servers are older than the probe for newer protocols, and some never answer it.
            return await self._enter(stack, sse_transport(self.spec, self.watch), legacy=True)
        except Exception:
            # Most servers speak streamable HTTP, so its refusal says more.
            self.watch = first
            raise refused from None

    def explain(self, error: BaseException) -> str:
        """Why the attempt failed, or the connection broke later: a sentence without secrets."""
        if self.watch.reason:
            return self.watch.reason
        return self.scrubber.scrub(describe_failure(error, self.spec, http_status=self.watch.http_status))

    @property
    def last_output(self) -> str:
        """The last words of the server's process, without secrets."""
        return self.scrubber.scrub(self.watch.last_words)

    async def _enter(self, stack: AsyncExitStack, transport: Transport, *, legacy: bool = False) -> Client:
        client = Client(
            transport,
            mode="legacy" if legacy else "auto",
            message_handler=self._build_message_handler(),
            client_info=_CLIENT_INFO,
            cache=None,
        )
        await stack.enter_async_context(client)
        # The SDK would check structured content against the tool's outputSchema, expressions, doubling references and
        # all. Both are the server's, so it could keep this process, which serves everybody, busy for years.
        client.session.validate_tool_result = _accept  # type: ignore[method-assign]
        return client

    def _build_message_handler(self) -> MessageHandlerFnT:
        async def handle(message: ServerNotification | Exception) -> None:
            # An Exception stands for a line that is no JSON-RPC; what it says may be anything, so it is not repeated
            # anywhere.
            if isinstance(message, ToolListChangedNotification):
                self._on_tools_changed()

        return handle
