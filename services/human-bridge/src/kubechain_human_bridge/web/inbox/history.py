"""What people decided lately: who, when, by which road, and both versions of the arguments.

The board knows which calls were answered and drops their texts; they are read once, for who looks, and kept in short.
An answer never changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import NotFoundError
from kubechain_human_bridge.web.inbox.entries import Json, cut, describe_answer, describe_call
from kubechain_human_bridge.web.inbox.fresh_cache import FreshCache

SHOWN = 50
_TEXT = 2_000
_READS_AT_ONCE = 8
_MAX_KNOWN = 500
_SECONDS = 3600.0


class History:
    """Reads answered calls."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)
        self._known: FreshCache[str, Json] = FreshCache(_SECONDS, _MAX_KNOWN)

    async def describe_all(self, calls: Sequence[TaskRunToolCall]) -> list[Json]:
        """The newest of these, in their order, less those that are gone. Raises KubeError."""
        told = await asyncio.gather(*map(self._describe, calls[:SHOWN]))
        return [entry for entry in told if entry is not None]

    async def _describe(self, known: TaskRunToolCall) -> Json | None:
        async def ask() -> Json:
            async with self._reads:
                call = await self._kube.get(TaskRunToolCall, known.namespace, known.name)
            if call.uid != known.uid:
                raise NotFoundError("another call has this name now")
            return describe_call(call) | {
                "arguments": cut(call.spec.arguments, _TEXT),
                "answer": describe_answer(call, _TEXT),
            }

        try:
            return await self._known.look_up(known.uid, ask)
        except NotFoundError:
            return None
