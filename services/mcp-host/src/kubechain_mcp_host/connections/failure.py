"""Turns what the SDK, the network or the operating system throws into a sentence for people (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from urllib.parse import urlsplit

import httpx2
from mcp import MCPError
from mcp_types import CONNECTION_CLOSED

from kubechain_mcp_host.errors import MCPHostError
from kubechain_mcp_host.spec.connection_spec import ConnectionSpec


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The plain exceptions inside nested exception groups; task groups wrap everything in them."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def describe_failure(error: BaseException, spec: ConnectionSpec, *, http_status: int | None) -> str:
    """One sentence, still to be scrubbed of secrets. ``http_status`` is that of the last answer, if there was one."""
    return _sentence(min(leaves(error), key=_rank), spec, http_status)


def _rank(error: BaseException) -> int:
    """How far an exception is from the cause: the lower, the closer."""
    for rank, kinds in enumerate(((MCPHostError,), (httpx2.HTTPError,), (OSError,), (MCPError,), (Exception,))):
        if isinstance(error, kinds):
            return rank
    return 9


def _sentence(error: BaseException, spec: ConnectionSpec, http_status: int | None) -> str:
    if isinstance(error, MCPHostError):
        return str(error)
    if spec.transport == "http":
        return _http_sentence(error, _public_url(spec.url), http_status)
    if isinstance(error, MCPError) and error.code == CONNECTION_CLOSED:
        return "the server process ended, or closed its output, before it answered."
    if isinstance(error, MCPError):
        return f"the server refused the MCP handshake: {_with_stop(error.message)}"
    if isinstance(error, OSError):
        return f'"{spec.command}" could not be started: {_with_stop(error.strerror or str(error))}'
    return f"the server does not speak MCP as expected ({type(error).__name__}: {_with_stop(str(error))})"


def _http_sentence(error: BaseException, url: str, http_status: int | None) -> str:
    if isinstance(error, httpx2.HTTPStatusError):
        http_status = error.response.status_code
    elif isinstance(error, httpx2.TimeoutException):
        return f"{url} did not answer in time."
    elif isinstance(error, httpx2.HTTPError | OSError):
        return f"{url} can not be reached: {_with_stop(str(error) or type(error).__name__)}"
    if http_status is not None and http_status >= 400:
        return f"{url} answered HTTP {http_status}{_hint(http_status)}."
    if isinstance(error, MCPError) and error.code == CONNECTION_CLOSED:
        return f"{url} closed the connection before it answered."
    if isinstance(error, MCPError):
        return f"{url} refused the MCP handshake: {_with_stop(error.message)}"
    return f"{url} does not speak MCP as expected ({type(error).__name__}: {_with_stop(str(error))})"


def _hint(status: int) -> str:
    try:
        phrase = f" ({HTTPStatus(status).phrase})"
    except ValueError:
        phrase = ""
    if status in (401, 403):
        return phrase + ": check spec.headers and the Secrets that they refer to"
    if status in (404, 405):
        return phrase + ": check the path of spec.url"
    return phrase


def _public_url(url: str) -> str:
    """The URL without user, password and query, which may hold credentials."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _with_stop(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else text + "."
