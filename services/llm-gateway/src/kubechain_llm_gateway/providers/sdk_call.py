"""What is the same in both SDKs: they come from one generator, so their clients and error classes have the same shape.

A call gives the encoded body to the SDK's documented ``post``, not to ``create``: that one walks the whole conversation
through its type declarations, 40 ms of the event loop for a conversation of 200 messages, to arrive at the same bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, Protocol

import httpx2

from kubechain_llm_gateway.providers.errors import (
    BrokenReplyError,
    ProviderError,
    UnreachableProviderError,
    build_status_error,
    scrub,
)
from kubechain_llm_gateway.wire_json import decode, encode


class SDKClient(Protocol):
    """The part of AsyncOpenAI and AsyncAnthropic that we use."""

    @property
    def base_url(self) -> httpx2.URL: ...
    async def post(self, path: str, *, cast_to: Any, content: Any = ..., options: Any = ...) -> Any: ...
    async def get(self, path: str, *, cast_to: Any, options: Any = ...) -> Any: ...


class SDKCaller:
    """Calls one SDK client and speaks our errors.

    ``secret`` is kept out of every message, ``headers`` go with every request.
    """

    def __init__(
        self,
        client: SDKClient,
        *,
        status_error: type[Exception],
        sdk_error: type[Exception],
        secret: str | None,
        headers: Mapping[str, object] | None = None,
    ) -> None:
        self._client = client
        self._headers = dict(headers or {})
        self._status_error = status_error
        self._sdk_error = sdk_error
        self._secret = secret

    async def post(self, path: str, body: Any, timeout: float) -> Any:
        """The JSON value that the provider answers to ``body``."""
        options = {"headers": {**self._headers, "Content-Type": "application/json"}}
        return await self._call(
            self._client.post(path, cast_to=httpx2.Response, content=encode(body), options=options), timeout
        )

    async def get(self, path: str, params: dict[str, Any], timeout: float) -> Any:
        """The JSON value at ``path``."""
        options = {"headers": self._headers, "params": params}
        return await self._call(self._client.get(path, cast_to=httpx2.Response, options=options), timeout)

    async def _call(self, call: Awaitable[Any], timeout: float) -> Any:
        try:
            async with asyncio.timeout(timeout):
                response = await call
        except TimeoutError as error:
            raise UnreachableProviderError(f"{self._place()} did not answer within {timeout:g} s") from error
        except self._status_error as error:
            raise self._status_problem(error) from None  # the SDK's error holds the request and so the key
        except self._sdk_error as error:
            raise UnreachableProviderError(self._network_problem(error)) from None
        return self._decode(response)

    def _status_problem(self, error: Any) -> ProviderError:
        return build_status_error(error.status_code, error.body, error.response.headers, secret=self._secret)

    def _network_problem(self, error: Exception) -> str:
        cause = error.__cause__
        reason = scrub(str(cause or error), self._secret) or type(cause or error).__name__
        happened = "lost the connection to" if isinstance(cause, httpx2.ReadError) else "cannot reach"
        return f"{happened} {self._place()}: {reason}"

    def _decode(self, response: httpx2.Response) -> Any:
        try:
            value = decode(response.content)
        except (ValueError, RecursionError) as error:
            raise BrokenReplyError(f"{self._place()} answered with something that is not JSON") from error
        problem = value.get("error") if isinstance(value, dict) else None
        if problem and "choices" not in value and "content" not in value:
            # Some gateways report a failure with HTTP 200 and the real status in the body.
            code = problem.get("code") if isinstance(problem, dict) else None
            status = code if isinstance(code, int) and 400 <= code <= 599 else 502
            raise build_status_error(status, value, response.headers, secret=self._secret)
        return value

    def _place(self) -> str:
        url = self._client.base_url
        return f"{url.scheme}://{url.netloc.decode('ascii', 'replace').rpartition('@')[2]}"
