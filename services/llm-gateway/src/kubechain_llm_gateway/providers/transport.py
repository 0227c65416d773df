"""The HTTP transport under both SDKs: aiohttp behind httpx2's interface, one connection pool for all providers.

The SDKs' own transport scans its whole pool for every request, which with 200 calls in flight costs about 2.5 ms of
the event loop per call; aiohttp's costs about 0.1 ms. TLS trust stays what httpx2 would use. Proxies come from the
environment, but are looked up here: aiohttp's own look-up hops to a thread for every request, and reads ~/.netrc.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from types import TracebackType
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
from yarl import URL

from kubechain_llm_gateway.providers.base import CALL_TIMEOUT, CONNECT_TIMEOUT

MAX_CONNECTIONS = 1024
"""Of all providers together; one LLM has up to 256 calls in flight on a replica."""

_SET_BY_AIOHTTP = frozenset({"host", "content-length", "transfer-encoding", "connection"})


class HTTPPool:
    """The aiohttp session of the process; build it on a running event loop, close it when the last call has ended."""

    def __init__(self, *, max_connections: int = MAX_CONNECTIONS) -> None:
        context: ssl.SSLContext = httpx2.create_ssl_context()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=max_connections, ssl=context, keepalive_timeout=60.0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT, sock_connect=CONNECT_TIMEOUT),
            auto_decompress=False,
        )
        self._proxies = getproxies()

    def build_client(self) -> httpx2.AsyncClient:
        """An HTTP client for an SDK; closing it leaves the pool open."""
        timeout = httpx2.Timeout(CALL_TIMEOUT, connect=CONNECT_TIMEOUT)
        return httpx2.AsyncClient(
            transport=_AiohttpTransport(self._session, self._proxies), timeout=timeout, trust_env=False
        )

    async def aclose(self) -> None:
        await self._session.close()


class _AiohttpTransport(httpx2.AsyncBaseTransport):
    """Sends one request and reads its whole answer; no SDK call of ours streams."""

    def __init__(self, session: aiohttp.ClientSession, proxies: Mapping[str, str]) -> None:
        self._session = session
        self._proxies = proxies

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
                body = await answer.read()
                return httpx2.Response(answer.status, headers=answer.raw_headers, content=body, request=request)
        except (TimeoutError, aiohttp.ServerTimeoutError) as error:
            raise httpx2.ReadTimeout("the provider did not answer in time", request=request) from error
        except (aiohttp.ClientError, OSError) as error:
            raise httpx2.ConnectError(_sentence(error), request=request) from error

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
    return str(error) or type(error).__name__
