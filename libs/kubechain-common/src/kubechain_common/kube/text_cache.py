"""What was read lately, up to so many bytes; the least recently used goes first.

Everything in it is immutable: the text behind a reference never changes while its Task lives.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeAlias

from kubechain_common.api.v1alpha1.conversation import Message

CacheKey: TypeAlias = tuple[str, str]
"""(uid of the Task, ``content.reference_key``): what belongs to one Task is never found for another."""


@dataclass(frozen=True, slots=True)
class Page:
    """The whole messages of one page, and the reference to the page before it."""

    earlier: Message | None
    messages: tuple[Message, ...]


class TextCache:
    """Texts and pages of Tasks. A capacity of 0 keeps nothing."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[CacheKey, tuple[str | Page, int]] = OrderedDict()
        self.size = 0

    def get_text(self, key: CacheKey) -> str | None:
        value = self._get(key)
        return value if isinstance(value, str) else None

    def get_page(self, key: CacheKey) -> Page | None:
        value = self._get(key)
        return value if isinstance(value, Page) else None

    def put(self, key: CacheKey, value: str | Page, size: int) -> None:
        """Keep the value, which takes about ``size`` bytes, in place of what was there."""
        self.drop(key)
        if size > self._capacity:
            return
        self._entries[key] = (value, size)
        self.size += size
        while self.size > self._capacity:
            _, (_, freed) = self._entries.popitem(last=False)
            self.size -= freed

    def drop(self, key: CacheKey) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self.size -= found[1]

    def _get(self, key: CacheKey) -> str | Page | None:
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]
