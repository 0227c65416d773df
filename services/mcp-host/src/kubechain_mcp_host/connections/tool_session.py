"""One open connection to a server: its tools, and calls to them.

A call's outcome is known (a result, an MCPError of the server, a timeout) or it is not (ConnectionLostError): whoever
calls must be able to tell the two apart, because only then it is clear whether the tool may be run again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Set
from typing import Any, cast

from mcp import Client, ClientSession, MCPError
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, INVALID_REQUEST, CallToolResult, RequestParamsMeta, Tool

from kubechain_common.api.nesting import is_deep
from kubechain_common.api.v1alpha1.mcpserver import MCPTool, ToolAnnotations
from kubechain_mcp_host.connections.argument_check import ArgumentCheck
from kubechain_mcp_host.connections.state import MAX_TOOLS_BYTES
from kubechain_mcp_host.connections.transports import Watch
from kubechain_mcp_host.errors import ConnectionLostError
from kubechain_mcp_host.scrubber import Scrubber

_MAX_TOOL_NAME = 253
_MAX_PAGES = 1000
_MAX_BYTES = 2 * MAX_TOOLS_BYTES
"""Of descriptions and schemas. It is too much for a status, which says so, and little enough to be held."""
_MAX_UNANSWERED = 3
_SESSION_GONE = "Session terminated"
"""The SDK's words for a 404 in answer to a session's request."""
_HTTP_FAILED = "Server returned an error response"
"""The SDK's words for every other HTTP error; a proxy's says nothing about the server behind it."""

_STREAM_ENDED = "SSE stream "
"""How the SDK's words begin when the stream of one request's answer was cut off, often by a proxy. They have the code
of a closed connection, whose words are others; every other request has a stream of its own.
"""


class ToolSession:
    """Valid until its connection breaks; ``call`` may be used by many tasks at once."""

    def __init__(
        self,
        client: Client,
        watch: Watch,
        scrubber: Scrubber,
        tools: tuple[MCPTool, ...],
        on_doubt: Callable[[], None],
    ) -> None:
        """``on_doubt`` is called when an answer, or its lack, leaves it open whether the server is still there."""
        self._on_doubt = on_doubt
        self._client = client
        self._watch = watch
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._unanswered = 0
        self.in_doubt = False
        """The stream of an answer was cut off: whether the server is still there has to be seen before calls begin."""
        self._checks: dict[str, ArgumentCheck] = {}
        self.scrubber = scrubber
        self._tools = tools

    @property
    def tools(self) -> tuple[MCPTool, ...]:
        return self._tools

    @tools.setter
    def tools(self, tools: tuple[MCPTool, ...]) -> None:
        self._tools = tools
        self._checks.clear()

    @property
    def protocol_version(self) -> str:
        return self._client.protocol_version

    @property
    def open(self) -> bool:
        """False once the server has hung up, or is stuck."""
        return not (self._watch.closed or self.stuck)

    @property
    def stuck(self) -> bool:
        """Whether so many calls in a row ran out of time that the server is likelier to hang than to be slow."""
        return self._unanswered >= _MAX_UNANSWERED

    @property
    def why_lost(self) -> str:
        """Why the connection has ended, or has to."""
        if self._watch.reason:
            return self._watch.reason
        if self.stuck:
            return f"the server did not answer {_MAX_UNANSWERED} calls in a row in time."
        return "the server ended, or closed the connection."

    def mark_unanswered(self) -> None:
        """Counts a call that ran out of time."""
        self._unanswered += 1
        if self.stuck:
            self._watch.wake()

    def find_problems(self, tool: MCPTool, arguments: Mapping[str, Any]) -> str:
        """What is wrong with the arguments of a call; empty if nothing is."""
        check = self._checks.get(tool.name)
        if check is None:
            check = self._checks[tool.name] = ArgumentCheck(tool.input_schema)
        return check.find_problems(arguments)

    def find(self, tool: str) -> MCPTool | None:
        return next((t for t in self.tools if t.name == tool), None)

    @property
    def busy(self) -> bool:
        """Whether calls run."""
        return self._running > 0

    async def wait_idle(self) -> None:
        await self._idle.wait()

    async def call(self, tool: str, arguments: dict[str, Any], meta: Mapping[str, str]) -> CallToolResult:
        """Calls a tool, for as long as the caller cares to wait: cancelling tells the server so.

        Raises ConnectionLostError, which knows whether the tool may have run, and MCPError when the server refused.
        """
        if not self.open:
            raise ConnectionLostError(self.why_lost, may_have_run=False)
        self._running += 1
        self._idle.clear()
        try:
            result = await self._client.call_tool(tool, arguments, meta=cast("RequestParamsMeta", dict(meta)))
        except MCPError as error:
            if _is_stream_ended(error):
                self.in_doubt = True
                self._on_doubt()
                raise ConnectionLostError("the stream of the answer ended before it came.") from error
            if not ends_connection(error):
                self._unanswered = 0
                raise self._explain(error) from error
            self._watch.mark_closed()
            # A server that no longer knows our session has refused the call with that.
            raise ConnectionLostError(self.why_lost, may_have_run=not _is_session_gone(error)) from error
        else:
            self._unanswered = 0
            return result
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    def _explain(self, error: MCPError) -> MCPError:
        if error.code != INTERNAL_ERROR or error.message != _HTTP_FAILED:
            return error
        self._on_doubt()
        status = f" (HTTP {self._watch.http_status})" if self._watch.http_status else ""
        return MCPError(error.code, f"{_HTTP_FAILED}{status}. It may or may not have taken effect.")


def ends_connection(error: Exception) -> bool:
    """Whether the error says that the connection, or the server's session with us, has gone."""
    if not isinstance(error, MCPError) or _is_stream_ended(error):
        return False
    return error.code == CONNECTION_CLOSED or _is_session_gone(error)


def _is_stream_ended(error: MCPError) -> bool:
    return error.code == CONNECTION_CLOSED and error.message.startswith(_STREAM_ENDED)


def _is_session_gone(error: MCPError) -> bool:
    return error.code == INVALID_REQUEST and error.message == _SESSION_GONE


async def list_tools(client: Client) -> tuple[MCPTool, ...]:
    """All pages of the server's tools, in its order; tools that a resource can not hold are left out, and so is what
    comes after far more than a status can hold.
    """
    if client.server_capabilities.tools is None:
        return ()
    found: dict[str, MCPTool] = {}
    size = 0
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        for tool in map(_to_api, filter(_fits, page.tools)):
            if size <= _MAX_BYTES:
                found[tool.name] = tool
                size += len(tool.model_dump_json())
        cursor = page.next_cursor
        if not cursor or size > _MAX_BYTES:
            break
    _forget_others(client.session, found.keys())
    return tuple(found.values())


def _fits(tool: Tool) -> bool:
    return 0 < len(tool.name) <= _MAX_TOOL_NAME and not is_deep(tool.input_schema)


def _forget_others(session: ClientSession, names: Set[str]) -> None:
    """The SDK keeps what it has read of each tool that ever was on one page of several, for as long as it is connected
    to a server that may have others each time.
    """
    for kept in (session._tool_output_schemas, session._x_mcp_header_maps):
        for name in kept.keys() - names:
            del kept[name]


def _to_api(tool: Tool) -> MCPTool:
    annotations = tool.annotations.model_dump(by_alias=True, exclude_none=True) if tool.annotations else None
    return MCPTool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        annotations=ToolAnnotations.model_validate(annotations) if annotations else None,
    )
