"""The HTTP transport under both SDKs: aiohttp behind httpx2's interface, one connection pool for all providers.

The SDKs' own transport scans its whole pool for every request, which with 200 calls in flight costs about 2.5 ms of
the event loop per call; aiohttp's costs about 0.1 ms. TLS trust stays what httpx2 would use. Proxies come from the
environment, but are looked up here: aiohttp's own look-up hops to a thread for every request, and reads ~/.netrc.
"""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Mapping
from types import TracebackType
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
from yarl import URL

from kubechain_llm_gateway.providers.base import CONNECT_TIMEOUT

MAX_CONNECTIONS = 1024
"""Of all providers together; one LLM has up to 256 calls in flight on a replica."""

MAX_REPLY = 64 * 1024 * 1024
"""Bytes; a reply without an end must not take the memory of the process."""

_SET_BY_AIOHTTP = frozenset({"host", "content-length", "transfer-encoding", "connection"})


class HTTPPool:
    """The aiohttp session of the process; build it on a running event loop, close it when the last call has ended."""

    def __init__(self, *, max_connections: int = MAX_CONNECTIONS, max_reply: int = MAX_REPLY) -> None:
        context: ssl.SSLContext = httpx2.create_ssl_context()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=max_connections, ssl=context, keepalive_timeout=60.0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),  # the caller bounds the whole
            auto_decompress=False,
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
    """Sends one request and reads its whole answer; no SDK call of ours streams."""

    def __init__(self, session: aiohttp.ClientSession, proxies: Mapping[str, str], max_reply: int) -> None:
        self._session = session
        self._proxies = proxies
        self._max_reply = max_reply

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        headers = [(name, value) for name, value in request.headers.items() if name not in _SET_BY_AIOHTTP]
        try:
            async with self._session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=headers,
                data=await request.aread() or None,
                proxy=self._proxy_for(request.url),
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            ) as answer:
                body = await self._read(answer, request)
                return httpx2.Response(answer.status, headers=answer.raw_headers, content=body, request=request)
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

    async def _read(self, answer: aiohttp.ClientResponse, request: httpx2.Request) -> bytes:
        body = bytearray()
        async for chunk in answer.content.iter_any():
            body += chunk
            if len(body) > self._max_reply:
                answer.close()  # the rest is not wanted, so the connection is of no more use
                raise httpx2.ReadError(f"the reply is over {self._max_reply} bytes", request=request)
        return bytes(body)

    def _proxy_for(self, url: httpx2.URL) -> str | None:
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        return None if proxy is None or proxy_bypass(url.host) else proxy

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """The pool outlives the client."""


def _sentence(error: Exception) -> str:
    """The reason without the address, which the caller tells."""
    number = error.errno if isinstance(error, OSError) else None
    if number is not None and number in errno.errorcode:
        return os.strerror(number)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
