"""Informer: keeps a Store of one kind in step with the API server and tells handlers what changed.

List, then watch from the list's version; go on from the last version seen after a break, list again when that history
is gone (410). A list is compared with the store, so deletions missed in a gap are found. The loop never ends by
itself: every error of the API server is waited out, and an object that cannot be read is logged, counted and left
out.

``observe`` feeds in the answer to a write of our own, so that the next read sees it; the watch's echo of that write
carries a version that is already known and is dropped before it is even parsed.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, Generic, TypeVar

from kubechain_common.api.v1alpha1.meta import Resource
from kubechain_common.kube.backoff import Backoff
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import GoneError, KubeError
from kubechain_common.kube.metrics import INFORMER_RELISTS, INFORMER_UNREADABLE
from kubechain_common.kube.packer import Packer
from kubechain_common.kube.paths import resource_path
from kubechain_common.kube.store import OWNER_INDEX, Change, Indexer, Key, Objects, Store
from kubechain_common.kube.watch import WatchEvent
from kubechain_common.telemetry.logging import get_logger

__all__ = ["Change", "Informer", "Key"]

R = TypeVar("R", bound=Resource)
Handler = Callable[[Change[R]], None]

log = get_logger(__name__)

PAGE_SIZE = 100
# Below the server's own limit, and spread so that watches opened together do not end together.
_WATCH_SECONDS = (270, 300)
# A restarted API server is to be followed again within a second, and asking one that is away costs little.
_BACKOFF = (0.05, 0.5)
_HEALTHY_SECONDS = 1.0


class Informer(Generic[R]):
    """The local view of one kind, in one namespace or (by default) in all; the selectors narrow it further.

    An object that comes to be selected is added, one that is not any more deleted, whenever it was made. ``path`` is
    for kinds that are not ours.

    ``indexers`` map an object to the values under which ``by_index`` finds it. ``transform`` may thin out objects
    before they are stored; ``strip`` takes out of what the API server sent what would be validated for nothing, and
    must not change what ``transform`` makes of it. ``pack_after`` is for kinds of which thousands lie idle: an object
    that did not change for so many seconds is kept as its compressed JSON, and reading it costs some 0.1 ms. Handlers
    are called synchronously, in the order of the changes, and must not block or raise.
    """

    def __init__(
        self,
        client: KubeClient,
        kind: type[R],
        *,
        namespace: str = "",
        path: str = "",
        label_selector: str = "",
        field_selector: str = "",
        indexers: Mapping[str, Indexer[R]] | None = None,
        transform: Callable[[R], R] | None = None,
        strip: Callable[[dict[str, Any]], None] | None = None,
        pack_after: float | None = None,
    ) -> None:
        self.kind = kind
        self.has_synced = asyncio.Event()
        self._client = client
        self._path = path or resource_path(kind, namespace)
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._transform = transform
        self._strip = strip
        self._store: Store[R] = Store(kind, indexers)
        self._packer = Packer(self._store, pack_after) if pack_after is not None else None
        self._handlers: list[Handler[R]] = []
        self._version = 0
        self._needs_list = True
        self._watching_since = math.inf
        self._last_error = ""
        self._unreadable: set[Key] = set()
        self._unreadable_count = INFORMER_UNREADABLE.labels(kind.crd.kind)  # of all informers of the kind
        self._log = log.bind(kind=kind.crd.kind)

    # --- reading ---

    def get(self, namespace: str, name: str) -> R | None:
        return self._store.get((namespace, name))

    def list(self) -> Objects[R]:
        return self._store.list()

    def each(self) -> Iterator[R]:
        """``list`` for many: one object after another, as each is when its turn comes."""
        return self._store.each()

    def by_index(self, index: str, value: str) -> Objects[R]:
        """Objects by one of the indexers given at the start. Raises KeyError for an unknown index."""
        return self._store.by_index(index, value)

    def each_by_index(self, index: str, value: str) -> Iterator[R]:
        """``by_index`` for many, as ``each`` is ``list`` for many. Raises KeyError for an unknown index."""
        return self._store.each_by_index(index, value)

    def count_by_index(self, index: str, value: str) -> int:
        """How many ``by_index`` would find. Raises KeyError for an unknown index."""
        return self._store.count_by_index(index, value)

    def by_owner(self, uid: str) -> Objects[R]:
        """Objects with an ownerReference to ``uid``."""
        return self._store.by_index(OWNER_INDEX, uid)

    def add_handler(self, handler: Handler[R]) -> None:
        """Calls ``handler`` for every change from now on, and for every object that is already here."""
        self._handlers.append(handler)
        for obj in self._store.each():
            self._call(handler, Change("added", None, obj))

    async def wait_synced(self) -> None:
        """Returns once the first list is in the store."""
        await self.has_synced.wait()

    # --- writing ---

    def observe(self, obj: R) -> None:
        """Takes the answer to a write of our own, if it is news."""
        self._notify(self._store.upsert(self._prepare(obj)))
        self._rest(obj.key)

    def keeps_whole(self, obj: R) -> bool:
        """Whether ``obj`` is as the API server has it, and not thinned out: only then may it be written back."""
        return self._prepare(obj) is obj

    def thin_out(self, obj: R) -> None:
        """Replaces the stored object by a smaller copy of the same version; handlers are not called."""
        self._store.replace(obj)
        self._rest(obj.key)

    # --- following the API server ---

    async def run(self) -> None:
        """Follows the API server until cancelled."""
        with self._packer.running() if self._packer is not None else nullcontext():
            await self._follow()

    async def _follow(self) -> None:
        backoff = Backoff(*_BACKOFF)
        loop = asyncio.get_running_loop()
        while True:
            started, self._watching_since = loop.time(), math.inf
            delay, listing = 0.0, self._needs_list
            try:
                if listing:
                    await self._list()
                await self._watch()
            except GoneError:
                self._log.info("informer lost the history, listing again")
                self._needs_list = True
                if not listing:  # the server is there, so there is nothing to wait for; but never list in a hot loop
                    backoff.reset()
            except KubeError as error:
                # A watch that was silent for its whole time only ends so when its kind has no objects.
                if loop.time() - self._watching_since < _HEALTHY_SECONDS:
                    self._report(error)
                delay = error.retry_after or 0.0
            if loop.time() - started > _HEALTHY_SECONDS:
                backoff.reset()
            await asyncio.sleep(max(delay, backoff.next()))

    async def _list(self) -> None:
        alive: set[Key] = set()
        token = ""
        while True:
            page = await self._client.list_page(
                self._path,
                limit=PAGE_SIZE,
                continue_token=token,
                label_selector=self._label_selector,
                field_selector=self._field_selector,
            )
            version = int(page.resource_version)
            if version < self._version:
                # Versions only grow, unless etcd was restored or replaced: nothing of what we know is true any more.
                self._log.warning("informer found an older history, starting over")
                self._version = 0
                self._notify(self._store.clear())
            for raw in page.items:
                alive.add(_key(raw))
                self._take(raw)
            if self._packer is not None:
                self._packer.pack_all()  # a page may hold hundreds, of which few will be looked at soon
            token = page.continue_token
            if not token:
                break
        for gone in self._unreadable - alive:
            self._mark(gone, readable=True)
        self._notify(self._store.prune(alive, version))
        self._version = version
        self._needs_list = False
        INFORMER_RELISTS.labels(self.kind.crd.kind).inc()
        if not self.has_synced.is_set():
            self._log.debug("informer synced", objects=len(alive))
            self.has_synced.set()

    async def _watch(self) -> None:
        params = {"resourceVersion": str(self._version), "timeoutSeconds": str(random.randint(*_WATCH_SECONDS))}
        if self._label_selector:
            params["labelSelector"] = self._label_selector
        if self._field_selector:
            params["fieldSelector"] = self._field_selector
        async with self._client.watch(self._path, params) as stream:
            self._last_error = ""
            self._watching_since = asyncio.get_running_loop().time()
            async for event in stream:
                self._handle_event(event)

    def _handle_event(self, event: WatchEvent) -> None:
        version = int(event.object["metadata"]["resourceVersion"])
        if event.type == "DELETED":
            self._mark(_key(event.object), readable=True)
            self._notify(self._store.delete(_key(event.object), version))
        elif event.type != "BOOKMARK":
            self._take(event.object)
        self._version = version

    def _take(self, raw: dict[str, Any]) -> None:
        if int(raw["metadata"]["resourceVersion"]) <= self._store.version(_key(raw)):
            return
        try:
            if self._strip is not None:
                self._strip(raw)
            changes = self._store.upsert(self._prepare(self.kind.model_validate(raw)))
        except Exception as error:  # whatever is in an object, the informer goes on
            self._mark(_key(raw), readable=False)
            namespace, name = _key(raw)
            # A ValidationError quotes the object's content, which does not belong in a log.
            reason = type(error).__name__
            self._log.error("informer skips an object it cannot read", namespace=namespace, name=name, error=reason)
            return
        self._mark(_key(raw), readable=True)
        self._notify(changes)
        self._rest(_key(raw))

    def _mark(self, key: Key, *, readable: bool) -> None:
        """Counts the objects that can not be read; one that is read again, or deleted, does not count any more."""
        if readable and key in self._unreadable:
            self._unreadable.remove(key)
            self._unreadable_count.dec()
        elif not readable and key not in self._unreadable:
            self._unreadable.add(key)
            self._unreadable_count.inc()

    def _rest(self, key: Key) -> None:
        """Starts the idle time after which the object is packed."""
        if self._packer is not None:
            self._packer.note_change(key)

    def _prepare(self, obj: R) -> R:
        return self._transform(obj) if self._transform is not None else obj

    # --- telling ---

    def _notify(self, changes: Iterable[Change[R]]) -> None:
        for change in changes:
            for handler in self._handlers:
                self._call(handler, change)

    def _call(self, handler: Handler[R], change: Change[R]) -> None:
        try:
            handler(change)
        except Exception:  # one bad handler must not starve the others
            self._log.exception("informer handler failed", namespace=change.obj.namespace, name=change.obj.name)

    def _report(self, error: KubeError) -> None:
        """Logs an error once, not at every attempt."""
        if str(error) != self._last_error:
            self._last_error = str(error)
            self._log.warning("informer cannot follow the API server, retrying", error=str(error))


def _key(raw: Mapping[str, Any]) -> Key:
    metadata = raw["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
