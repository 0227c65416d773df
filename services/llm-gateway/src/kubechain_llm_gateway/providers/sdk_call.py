"""What is the same in both SDKs: they come from one generator, so their clients and error classes have the same shape.

A call gives the encoded body to the SDK's documented ``post``, not to ``create``: that one walks the whole conversation
through its type declarations, 40 ms of the event loop for a conversation of 200 messages, to arrive at the same bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, cast

import httpx2

from kubechain_llm_gateway.protocols.sse import FailureInStreamError, ReplyAccumulator
from kubechain_llm_gateway.protocols.wire_json import ReplyTooLargeError, decode, encode
from kubechain_llm_gateway.providers.base import OnDelta, Tokens
from kubechain_llm_gateway.providers.errors import (
    BrokenReplyError,
    ProviderError,
    UnreachableProviderError,
    build_status_error,
    build_stream_error,
    over_our_limits,
    scrub,
)
from kubechain_llm_gateway.providers.streamed_reply import BrokenOffError, StreamedReply


class SDKClient(Protocol):
    """The part of AsyncOpenAI and AsyncAnthropic that we use."""

    @property
    def base_url(self) -> httpx2.URL: ...
    async def post(
        self, path: str, *, cast_to: Any, content: Any = ..., options: Any = ..., stream: Any = ...
    ) -> Any: ...
    async def get(self, path: str, *, cast_to: Any, options: Any = ...) -> Any: ...


class SDKCaller:
    """Calls one SDK client and speaks our errors.

    ``secret`` is kept out of every message, ``headers`` go with every request, ``tokens`` authorise it if given.
    """

    def __init__(
        self,
        client: SDKClient,
        *,
        status_error: type[Exception],
        sdk_error: type[Exception],
        secret: str | None,
        headers: Mapping[str, object] | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        self._client = client
        self._headers = dict(headers or {})
        self._status_error = status_error
        self._sdk_error = sdk_error
        self._secret = secret
        self._tokens = tokens

    async def post(self, path: str, body: Any, timeout: float) -> Any:
        """The JSON value that the provider answers to ``body``."""
        content = encode(body)

        async def send() -> Any:
            options = await self._json_options()
            return await self._client.post(path, cast_to=httpx2.Response, content=content, options=options)

        return await self._call(send, timeout)

    async def get(self, path: str, params: dict[str, Any], timeout: float) -> Any:
        """The JSON value at ``path``."""

        async def send() -> Any:
            options = {"headers": await self._authorised_headers(), "params": params}
            return await self._client.get(path, cast_to=httpx2.Response, options=options)

        return await self._call(send, timeout)

    async def stream(
        self, path: str, body: Any, timeout: float, accumulator: ReplyAccumulator, on_delta: OnDelta | None
    ) -> Any:
        """The value that ``post`` gives, from a provider that is asked to stream it; ``timeout`` is for the whole.

        A StreamRefusedError says that the provider is to be asked in another way.
        """
        reply = StreamedReply(accumulator, on_delta)
        headers: Mapping[str, str] = {}
        content = encode(body)
        try:
            with self._our_errors(timeout, streaming=True):
                async with asyncio.timeout(timeout) as bound:
                    options = await self._json_options()
                    response: httpx2.Response = await self._client.post(
                        path, cast_to=httpx2.Response, content=content, options=options, stream=True
                    )
                    headers = response.headers
                    try:
                        unstreamed = await reply.read(response, bound)
                    finally:
                        await response.aclose()
        except UnreachableProviderError:
            if not reply.complete:
                raise
            unstreamed = None  # only the connection's end was missing
        except FailureInStreamError as failure:
            raise build_status_error(failure.status, failure.body, headers, secret=self._secret) from None
        except BrokenOffError:
            problem = f"lost the connection to {self._place()}: the reply broke off in the middle"
            raise UnreachableProviderError(problem) from None
        except ReplyTooLargeError as error:
            raise over_our_limits(str(error)) from None
        except (ValueError, RecursionError):
            raise self._not_json() from None
        return reply.build() if unstreamed is None else self._decode(unstreamed, headers)

    async def _json_options(self) -> dict[str, Any]:
        return {"headers": {**await self._authorised_headers(), "Content-Type": "application/json"}}

    async def _authorised_headers(self) -> dict[str, object]:
        if self._tokens is None:
            return self._headers
        self._secret = await self._tokens.token()
        return {**self._headers, "Authorization": f"Bearer {self._secret}"}

    async def _call(self, send: Callable[[], Awaitable[Any]], timeout: float) -> Any:
        with self._our_errors(timeout):
            async with asyncio.timeout(timeout):
                response = await send()
        return self._decode(response.content, response.headers)

    @contextmanager
    def _our_errors(self, timeout: float, *, streaming: bool = False) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise UnreachableProviderError(f"{self._place()} did not answer within {timeout:g} s") from error
        except self._status_error as error:
            problem = self._status_problem(error)
            if streaming:
                problem = build_stream_error(problem, cast("Any", error).body)
            raise problem from None  # the SDK's error holds the request and so the key
        except self._sdk_error as error:
            raise UnreachableProviderError(self._network_problem(error.__cause__ or error)) from None
        except httpx2.RequestError as error:
            raise UnreachableProviderError(self._network_problem(error)) from None

    def _status_problem(self, error: Any) -> ProviderError:
        return build_status_error(error.status_code, error.body, error.response.headers, secret=self._secret)

    def _network_problem(self, cause: BaseException) -> str:
        reason = scrub(str(cause), self._secret) or type(cause).__name__
        happened = "lost the connection to" if isinstance(cause, httpx2.ReadError) else "cannot reach"
        return f"{happened} {self._place()}: {reason}"

    def _decode(self, content: bytes, headers: Mapping[str, str]) -> Any:
        try:
            value = decode(content)
        except ReplyTooLargeError as error:
            raise over_our_limits(str(error)) from None
        except (ValueError, RecursionError) as error:
            raise self._not_json() from error
        problem = value.get("error") if isinstance(value, dict) else None
        if problem and "choices" not in value and "content" not in value:
            # Some gateways report a failure with HTTP 200 and the real status in the body.
            code = problem.get("code") if isinstance(problem, dict) else None
            status = code if isinstance(code, int) and 400 <= code <= 599 else 502
            raise build_status_error(status, value, headers, secret=self._secret)
        return value

    def _not_json(self) -> BrokenReplyError:
        return BrokenReplyError(f"{self._place()} answered with something that is not JSON")

    def _place(self) -> str:
        url = self._client.base_url
        return f"{url.scheme}://{url.netloc.decode('ascii', 'replace').rpartition('@')[2]}"
