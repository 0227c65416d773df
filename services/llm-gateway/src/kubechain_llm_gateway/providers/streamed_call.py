"""Asks for a completion as a stream, and gets along with servers that refuse to.

A server that refuses ``stream_options`` is asked without, one that refuses ``stream`` is asked for the reply in one
piece. What it took is remembered, so that only the first call pays for finding out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kubechain_llm_gateway.protocols.sse import ReplyAccumulator
from kubechain_llm_gateway.providers.base import OnDelta
from kubechain_llm_gateway.providers.errors import StreamRefusedError
from kubechain_llm_gateway.providers.sdk_call import SDKCaller

Wish = Mapping[str, Any]


class StreamedCall:
    """One endpoint of one client. ``options`` are fields beside ``stream`` that not every server knows.

    ``stream_path`` is where streams are asked for, where that is not ``path``.
    """

    def __init__(
        self,
        caller: SDKCaller,
        path: str,
        accumulator: Callable[[], ReplyAccumulator],
        options: Wish | None = None,
        stream_path: str | None = None,
    ) -> None:
        self._caller = caller
        self._path = path
        self._stream_path = stream_path or path
        self._accumulator = accumulator
        self._wish: Wish = {"stream": True, **(options or {})}

    async def ask(self, body: Mapping[str, Any], timeout: float, on_delta: OnDelta | None) -> Any:
        """The reply to ``body`` as the provider gives it in one piece; ``timeout`` in seconds for each asking.

        Raises:
            ProviderError: there is none.
        """
        wish = self._wish
        while True:
            try:
                reply = await self._ask(body, wish, timeout, on_delta)
            except StreamRefusedError as error:
                if not wish:
                    raise
                wish = {"stream": True} if error.field == "stream_options" and len(wish) > 1 else {}
            else:
                self._wish = wish  # only now: what was refused may have been something else
                return reply

    async def _ask(self, body: Mapping[str, Any], wish: Wish, timeout: float, on_delta: OnDelta | None) -> Any:
        if not wish:
            return await self._caller.post(self._path, body, timeout)
        return await self._caller.stream(self._stream_path, {**body, **wish}, timeout, self._accumulator(), on_delta)
