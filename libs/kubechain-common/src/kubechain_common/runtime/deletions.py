"""Objects that were deleted with work under way, until that was taken back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from kubechain_common.api.v1alpha1 import Resource
from kubechain_common.kube.informer import Key

R = TypeVar("R", bound=Resource)


class Deletions(Generic[R]):
    """Deleted objects by key, in the order in which they were heard of: one name may be deleted, made again and deleted
    again.
    """

    def __init__(self, take_back: Callable[[R], Awaitable[None]]) -> None:
        self._take_back = take_back
        self._waiting: dict[Key, list[R]] = {}

    def add(self, obj: R) -> None:
        self._waiting.setdefault(obj.key, []).append(obj)

    async def settle(self, key: Key) -> None:
        """Takes back what those of this key had under way; an error keeps the rest for the next time."""
        waiting = self._waiting.get(key, [])
        while waiting:  # the next deletion may be heard of meanwhile
            obj = waiting[0]
            await self._take_back(obj)
            waiting.remove(obj)
        self._waiting.pop(key, None)
