"""What waits for people and what they answered lately, kept from the informer's changes, and who follows it live.

Of the waiting calls, which may be thousands, only their order is kept here. The last answers are kept by namespace,
so that a busy one does not crowd out the others'. Whoever follows is told through a bounded queue: who can not keep
up is told to look anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.kube.store import Change, Key
from kubechain_human_bridge.web.inbox.entries import answer_of, answered_at, asked_at

HISTORY = 100
"""Answers kept of each namespace."""

_BACKLOG = 200
_EPOCH = datetime.fromtimestamp(0, UTC)


class Calls(Protocol):
    """The local view of all TaskRunToolCalls; texts in it may be cut."""

    def get(self, namespace: str, name: str) -> TaskRunToolCall | None: ...

    def add_handler(self, handler: Callable[[Change[TaskRunToolCall]], None]) -> None: ...


@dataclass(frozen=True, slots=True)
class News:
    """What has changed. ``arrived``: a call waits for somebody. ``left``: it waits no more, and says why. ``lost``:
    look anew.
    """

    kind: Literal["arrived", "left", "lost"]
    call: TaskRunToolCall | None = None


class Follower:
    """One who is told what changes."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[News] = asyncio.Queue(_BACKLOG)
        self._lost = False

    async def next(self) -> News:
        if self._lost:
            self._lost = False
            return News("lost")
        return await self._queue.get()

    def tell(self, news: News) -> None:
        try:
            self._queue.put_nowait(news)
        except asyncio.QueueFull:
            self._lost = True
            while not self._queue.empty():
                self._queue.get_nowait()


class Board:
    """What waits and what was answered lately, as ``calls`` tell from when this is made."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._waiting: dict[Key, datetime] = {}
        self._answered: dict[str, dict[str, TaskRunToolCall]] = {}
        self._followers: set[Follower] = set()
        calls.add_handler(self._handle_change)

    def find(self, namespace: str, name: str) -> TaskRunToolCall | None:
        """The call as the informer has it, waiting or not."""
        return self._calls.get(namespace, name)

    def waiting(self) -> Sequence[Key]:
        """The keys of the calls that wait, oldest first."""
        return [key for _, key in sorted((at, key) for key, at in self._waiting.items())]

    def answered(self) -> Sequence[TaskRunToolCall]:
        """The calls that were answered lately, newest first."""
        known = [call for calls in self._answered.values() for call in calls.values()]
        return sorted(known, key=_when_answered, reverse=True)

    @contextmanager
    def follow(self) -> Iterator[Follower]:
        follower = Follower()
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    def _handle_change(self, change: Change[TaskRunToolCall]) -> None:
        call = change.obj
        waits = change.new is not None and call.awaits_human and not call.spec.cancel
        known = self._waiting.get(call.key)
        if waits:
            self._waiting[call.key] = asked_at(call) or _EPOCH
            if known is None:
                self._tell(News("arrived", call))
        elif known is not None:
            del self._waiting[call.key]
            self._tell(News("left", call))
        self._remember(call, gone=change.new is None)

    def _remember(self, call: TaskRunToolCall, *, gone: bool) -> None:
        known = self._answered.setdefault(call.namespace, {})
        known.pop(call.name, None)
        if not gone and answer_of(call) is not None:
            known[call.name] = call
        if len(known) > 2 * HISTORY:
            newest = sorted(known.values(), key=_when_answered, reverse=True)[:HISTORY]
            self._answered[call.namespace] = {kept.name: kept for kept in newest}
        elif not known:
            del self._answered[call.namespace]

    def _tell(self, news: News) -> None:
        for follower in self._followers:
            follower.tell(news)


def _when_answered(call: TaskRunToolCall) -> datetime:
    return answered_at(call) or call.metadata.creation_timestamp or _EPOCH
