"""The HTTP transport under both SDKs: aiohttp behind httpx2's interface, one connection pool for all providers.

The SDKs' own transport scans its whole pool for every request, which with 200 calls in flight costs about 2.5 ms of
the event loop per call; aiohttp's costs about 0.1 ms. TLS trust stays what httpx2 would use. Proxies come from the
environment, but are looked up here: aiohttp's own look-up hops to a thread for every request, and reads ~/.netrc.
What is on this machine is asked without one, as Go's programs do it.
"""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from types import TracebackType
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
from yarl import URL

from kubechain_llm_gateway.providers.base import CONNECT_TIMEOUT

MAX_CONNECTIONS = 1024
"""Connections to all providers together; one LLM has up to 256 calls in flight on a replica."""

MAX_REPLY = 64 * 1024 * 1024
"""Bytes, decompressed; a reply without an end must not take the memory of the process."""

_SET_BY_AIOHTTP = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})
_UNDONE_BY_AIOHTTP = b"content-encoding"


class HTTPPool:
    """The aiohttp session of the process; build it on a running event loop, close it when the last call has ended."""

    def __init__(self, *, max_reply: int = MAX_REPLY) -> None:
        context: ssl.SSLContext = httpx2.create_ssl_context()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=context, keepalive_timeout=60.0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),  # the caller bounds the whole
        )
        self._proxies = getproxies()
        self._max_reply = max_reply

    def build_client(self) -> httpx2.AsyncClient:
        """An HTTP client for an SDK; closing it leaves the pool open."""
        return httpx2.AsyncClient(
            transport=_AiohttpTransport(self._session, self._proxies, self._max_reply), timeout=None, trust_env=False
        )

    async def aclose(self) -> None:
        await self._session.close()


class _AiohttpTransport(httpx2.AsyncBaseTransport):
    """Sends one request; the answer's body arrives as it is read."""

    def __init__(self, session: aiohttp.ClientSession, proxies: Mapping[str, str], max_reply: int) -> None:
        self._session = session
        self._proxies = proxies
        self._max_reply = max_reply

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        headers = [(name, value) for name, value in request.headers.items() if name not in _SET_BY_AIOHTTP]
        with _our_errors(request):
            answer = await self._session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=headers,
                data=await request.aread() or None,
                proxy=self._proxy_for(request.url),
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
            )
        body = _Body(answer, request, self._max_reply)
        told = [(name, value) for name, value in answer.raw_headers if name.lower() != _UNDONE_BY_AIOHTTP]
        return httpx2.Response(answer.status, headers=told, stream=body, request=request)

    def _proxy_for(self, url: httpx2.URL) -> str | None:
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        return None if proxy is None or _is_this_machine(url.host) or proxy_bypass(url.host) else proxy

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """The pool outlives the client."""


class _Body(httpx2.AsyncByteStream):
    """The bytes of one answer, as the network brings them. Closing it before its end ends the connection."""

    def __init__(self, answer: aiohttp.ClientResponse, request: httpx2.Request, max_reply: int) -> None:
        self._answer = answer
        self._request = request
        self._max_reply = max_reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        with _our_errors(self._request):
            async for chunk in self._answer.content.iter_any():
                size += len(chunk)
                if size > self._max_reply:
                    raise httpx2.ReadError(f"the reply is over {self._max_reply} bytes", request=self._request)
                yield chunk

    async def aclose(self) -> None:
        self._answer.release()


def _is_this_machine(host: str) -> bool:
    """Whether the host is the loopback interface, which to a proxy would be another machine's."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


@contextmanager
def _our_errors(request: httpx2.Request) -> Iterator[None]:
    """What aiohttp raises becomes what the SDKs expect of httpx2."""
    try:
        yield
    except TimeoutError as error:
        raise httpx2.ConnectTimeout(f"no connection within {CONNECT_TIMEOUT:g} s", request=request) from error
    except aiohttp.ClientPayloadError as error:
        raise httpx2.ReadError("the reply broke off in the middle", request=request) from error
    except aiohttp.ServerDisconnectedError as error:
        raise httpx2.ReadError("the connection was closed without a reply", request=request) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx2.ConnectError(_sentence(error.os_error), request=request) from error
    except (aiohttp.ClientError, OSError) as error:
        raise httpx2.ReadError(_sentence(error), request=request) from error


def _sentence(error: Exception) -> str:
    """The reason without the address, which the caller tells."""
    number = error.errno if isinstance(error, OSError) else None
    if number is not None and number in errno.errorcode:
        return os.strerror(number)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
