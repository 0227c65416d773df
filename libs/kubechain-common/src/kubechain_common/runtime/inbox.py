"""Results that wait for their object's reconcile.

A consumer's handler parks its delivery here and waits, heartbeats going on, until the reconciler has written what the
result says into the object. Only then does the handler return, and the message is acknowledged: a crash in between
delivers it again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, MutableMapping, MutableSequence
from typing import Any, Generic, TypeVar

from kubechain_common.api.v1alpha1 import Resource
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import NotFoundError
from kubechain_common.kube.informer import Informer, Key
from kubechain_common.messages import Envelope, ObjectRef
from kubechain_common.messaging.consumer import Delivery

K = TypeVar("K")
C = TypeVar("C", bound=MutableSequence[Any])
M = TypeVar("M", bound=Envelope)
R = TypeVar("R", bound=Resource)


class Parked(Generic[M]):
    """One result for the object ``uid``, which is woken under ``key``, until it is settled."""

    def __init__(self, uid: str, key: Key, message: M) -> None:
        self.uid, self.key = uid, key
        self.message = message
        self.settled = asyncio.Event()


class Inbox(Generic[M]):
    """Parked results by the uid of their object, in the order of their arrival.

    ``enqueue`` wakes the object and gives its key, None if there is none: a result for nobody is settled at once. Of
    whom a result is that can not be read only its uid may be known, so the key is not that of the message.
    """

    def __init__(self, ref_of: Callable[[M], ObjectRef], enqueue: Callable[[ObjectRef], Key | None]) -> None:
        self._ref_of = ref_of
        self._enqueue = enqueue
        self._parked: dict[str, deque[Parked[M]]] = {}
        self._by_key: dict[Key, list[Parked[M]]] = {}

    def count(self) -> int:
        """How many results wait, of all objects."""
        return sum(map(len, self._parked.values()))

    async def handle(self, delivery: Delivery[M]) -> None:
        """The consumer's handler: returns once the result is settled."""
        await self.take(delivery.message)

    async def take(self, message: M) -> None:
        """Parks the result, or one made up in place of an unreadable one; returns once it is settled."""
        ref = self._ref_of(message)
        key = self._enqueue(ref)
        if key is None:
            return
        parked = Parked(ref.uid, key, message)
        self._parked.setdefault(parked.uid, deque()).append(parked)
        self._by_key.setdefault(parked.key, []).append(parked)
        try:
            await parked.settled.wait()
        finally:
            self._remove(parked)

    def first(self, uid: str, fits: Callable[[M], bool] = lambda message: True) -> Parked[M] | None:
        """The oldest result for the object that ``fits``, or None."""
        return next((parked for parked in self._parked.get(uid, ()) if fits(parked.message)), None)

    def settle(self, uid: str, parked: Parked[M]) -> bool:
        """The result is in the object, or is of no use. True when another one for the same object waits."""
        parked.settled.set()
        self._remove(parked)
        return uid in self._parked

    async def settle_orphans_of(self, key: Key, known: R | None, informer: Informer[R], kube: KubeClient) -> None:
        """Settle what waits under ``key`` for another object than the live one.

        ``known`` is our copy, which may be behind: where something seems to wait in vain, the API server is asked, and
        the informer told. Raises KubeError.
        """
        known_uid = known.uid if known is not None else None
        if all(parked.uid == known_uid for parked in self._by_key.get(key, ())):
            return
        try:
            live = await kube.get(informer.kind, *key)
        except NotFoundError:
            self.settle_orphans(key, None)
        else:
            self.settle_orphans(key, live.uid)
            informer.observe(live)

    def settle_orphans(self, key: Key, live_uid: str | None) -> None:
        """Settle what waits under ``key`` for an object that is gone, or that another one of its name replaced."""
        for parked in list(self._by_key.get(key, ())):
            if parked.uid != live_uid:
                self.settle(parked.uid, parked)

    def _remove(self, parked: Parked[M]) -> None:
        if parked in self._by_key.get(parked.key, ()):
            _drop(self._parked, parked.uid, parked)
            _drop(self._by_key, parked.key, parked)


def _drop(waiting: MutableMapping[K, C], at: K, parked: Parked[Any]) -> None:
    waiting[at].remove(parked)
    if not waiting[at]:
        del waiting[at]
