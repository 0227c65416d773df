"""Access tokens for a service account, through google-auth.

google-auth is not asynchronous: it signs, and asks Google's token endpoint, in a thread; the HTTP request itself comes
back to our connection pool, so that proxies and TLS are those of every call. A token lives for an hour. In its last
minutes one call fetches the next one, and the others go on with the old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx2
from google.auth.credentials import TokenState
from google.auth.exceptions import GoogleAuthError, MalformedError, TransportError
from google.auth.transport import Request, Response
from google.oauth2.service_account import Credentials

from kubechain_llm_gateway.providers.base import VALIDATION_TIMEOUT
from kubechain_llm_gateway.providers.errors import (
    KeyRefusedError,
    ProviderError,
    TransientProviderError,
    UnreachableProviderError,
    scrub,
)
from kubechain_llm_gateway.providers.service_account import parse_service_account
from kubechain_llm_gateway.providers.transport import HTTPPool

SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class ServiceAccountTokens:
    """Tokens for the key file ``text``."""

    def __init__(self, text: str, pool: HTTPPool) -> None:
        self._text = text
        self._client = pool.build_client()
        self._fetching = asyncio.Lock()
        self._credentials: Credentials | None = None

    async def token(self) -> str:
        """See ``base.Tokens``."""
        state = self._credentials.token_state if self._credentials else TokenState.INVALID
        if state == TokenState.INVALID or (state == TokenState.STALE and not self._fetching.locked()):
            async with self._fetching:
                await self._refresh()
        assert self._credentials is not None
        return str(self._credentials.token)

    async def _refresh(self) -> None:
        """A fresh token, unless another call has just got it, or the old one is still good and there is none."""
        if self._credentials is not None and self._credentials.token_state == TokenState.FRESH:
            return
        try:
            async with asyncio.timeout(VALIDATION_TIMEOUT):
                await self._ask()
        except ProviderError as error:
            if not (error.retryable and self._is_usable()):
                raise
        except TimeoutError:
            if not self._is_usable():
                raise UnreachableProviderError(
                    f"Google's token endpoint did not answer within {VALIDATION_TIMEOUT:g} s"
                ) from None

    def _is_usable(self) -> bool:
        return self._credentials is not None and self._credentials.token_state == TokenState.STALE

    async def _ask(self) -> None:
        request = _PoolRequest(self._client, asyncio.get_running_loop())
        try:
            # A copy is refreshed, so that a request which is given up changes nothing later.
            self._credentials = await asyncio.to_thread(_fetch, self._text, request)
        except TransportError as error:
            raise UnreachableProviderError(f"cannot reach Google's token endpoint: {error}") from None
        except (MalformedError, ValueError, TypeError):  # TypeError: it is encrypted
            raise KeyRefusedError("the private_key of the service account cannot be read") from None
        except GoogleAuthError as error:
            kind = TransientProviderError if error.retryable else KeyRefusedError
            raise kind(scrub(_reason(error), self._text)) from None


def _fetch(text: str, request: Request) -> Credentials:
    info = parse_service_account(text)
    if isinstance(info, str):
        raise ValueError(info)
    credentials: Credentials = Credentials.from_service_account_info(info, scopes=[SCOPE])  # type: ignore[no-untyped-call]
    credentials.refresh(request)  # type: ignore[no-untyped-call]
    return credentials


def _reason(error: GoogleAuthError) -> str:
    return str(error.args[0]).removesuffix(": None") if error.args else "no reason given"


class _Answer(Response):
    def __init__(self, answer: httpx2.Response) -> None:
        self._answer = answer

    @property
    def status(self) -> int:
        return self._answer.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return self._answer.headers

    @property
    def data(self) -> bytes:
        return self._answer.content


class _PoolRequest(Request):
    """Called in a thread; the request is made on the loop."""

    def __init__(self, client: httpx2.AsyncClient, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = loop

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> Response:
        call = self._client.request(method, url, content=body, headers=dict(headers or {}))
        running = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return _Answer(running.result(timeout or VALIDATION_TIMEOUT))
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            raise TransportError(str(error) or type(error).__name__) from error  # type: ignore[no-untyped-call]
        finally:
            running.cancel()
