"""The local copy of one kind: objects by key, indexes, and what is known of the dead.

Pure data, no I/O. Two sources feed it, the watch and the answers to our own writes, and they overtake each other.
Versions settle every race: resourceVersions of one kind are integers that only grow (https://kep.k8s.io/5504), so
what is not newer is ignored, and a deletion leaves a tombstone with its version, lest a late answer to a write bring
the object back.

An object may be packed into its compressed JSON, a twentieth of the size, for the time in which nothing happens to it;
whoever reads it gets a copy, made anew each time.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

from kubechain_common.api.v1alpha1.meta import Resource

R = TypeVar("R", bound=Resource)
Key = tuple[str, str]
Indexer = Callable[[R], Iterable[str]]

OWNER_INDEX = "owner"
_MAX_TOMBSTONES = 4096
_QUICKLY = 1
"""zlib's fastest level: an object is packed more often than it is kept for long."""


@dataclass(frozen=True, slots=True)
class Change(Generic[R]):
    """One step of one object. A re-created object (same name, new uid) is a deletion followed by an addition."""

    kind: Literal["added", "modified", "deleted"]
    old: R | None
    new: R | None

    @property
    def obj(self) -> R:
        """The latest state there is: the new object, or the last one seen of a deleted object."""
        obj = self.new if self.new is not None else self.old
        assert obj is not None
        return obj


Changes: TypeAlias = list[Change[R]]
Objects: TypeAlias = list[R]


def version_of(obj: Resource) -> int:
    return int(obj.metadata.resource_version or 0)


class Store(Generic[R]):
    """Objects by (namespace, name) with secondary indexes; a mutation returns the changes that it made, in order."""

    def __init__(self, kind: type[R], indexers: Mapping[str, Indexer[R]] | None = None) -> None:
        self._kind = kind
        self._indexers: dict[str, Indexer[R]] = {OWNER_INDEX: _owner_uids, **(indexers or {})}
        self._objects: dict[Key, R | bytes] = {}
        self._versions: dict[Key, int] = {}
        self._index: dict[str, dict[str, dict[Key, None]]] = {name: {} for name in self._indexers}
        self._indexed: dict[Key, list[tuple[str, str]]] = {}
        self._tombstones: OrderedDict[Key, int] = OrderedDict()

    def get(self, key: Key) -> R | None:
        kept = self._objects.get(key)
        return None if kept is None else self._unpack(kept)

    def list(self) -> Objects[R]:
        return [self._unpack(kept) for kept in self._objects.values()]

    def each(self) -> Iterator[R]:
        """One object after another, as each is when its turn comes: of thousands, one at a time is unpacked."""
        return self._each(list(self._objects))

    def by_index(self, index: str, value: str) -> Objects[R]:
        """The objects whose indexer yields ``value``. Raises KeyError for an unknown index."""
        return [self._unpack(self._objects[key]) for key in self._index[index].get(value, ())]

    def each_by_index(self, index: str, value: str) -> Iterator[R]:
        """``by_index`` for many, as ``each`` is ``list`` for many. Raises KeyError for an unknown index."""
        return self._each(list(self._index[index].get(value, ())))

    def count_by_index(self, index: str, value: str) -> int:
        """How many objects ``by_index`` would find. Raises KeyError for an unknown index."""
        return len(self._index[index].get(value, ()))

    def version(self, key: Key) -> int:
        """The newest version heard of, dead or alive; 0 when there is none."""
        return self._versions.get(key) or self._tombstones.get(key, 0)

    def upsert(self, obj: R) -> Changes[R]:
        """Takes the object unless a newer state, or its deletion, is known."""
        key, version = obj.key, version_of(obj)
        if version <= self.version(key):
            return []
        entries = [(name, value) for name, indexer in self._indexers.items() for value in indexer(obj)]
        old = self.get(key)
        self._unindex(key)
        self._tombstones.pop(key, None)
        self._objects[key], self._versions[key], self._indexed[key] = obj, version, entries
        for name, value in entries:
            self._index[name].setdefault(value, {})[key] = None
        return _changes(old, obj)

    def replace(self, obj: R) -> None:
        """Keeps ``obj`` in place of the object of the same key and version; nothing if another one is known by now."""
        key = obj.key
        if key in self._objects and version_of(obj) == self._versions[key]:
            self._objects[key] = obj

    def pack(self, key: Key, version: int) -> None:
        """Keeps the object as its compressed JSON, if this is still its version and can be written as JSON."""
        kept = self._objects.get(key)
        if isinstance(kept, Resource) and self._versions[key] == version:
            with suppress(ValueError):
                text = kept.model_dump_json(by_alias=True, exclude_unset=True)
                self._objects[key] = zlib.compress(text.encode(), _QUICKLY)

    def delete(self, key: Key, version: int) -> Changes[R]:
        """Removes the object unless it was created anew after ``version``."""
        if version < self.version(key):
            return []
        self._tombstones[key] = version
        self._tombstones.move_to_end(key)
        if len(self._tombstones) > _MAX_TOMBSTONES:
            self._tombstones.popitem(last=False)
        old = self.get(key)
        if old is None:
            return []
        del self._objects[key], self._versions[key]
        self._unindex(key)
        return [Change("deleted", old, None)]

    def prune(self, alive: set[Key], version: int) -> Changes[R]:
        """Removes what a list of ``version`` did not contain; what is newer than the list stays."""
        missing = [key for key, known in self._versions.items() if key not in alive and known <= version]
        return [change for key in missing for change in self.delete(key, version)]

    def clear(self) -> Changes[R]:
        """Forgets everything, the dead too: another history begins."""
        changes: Changes[R] = [Change("deleted", old, None) for old in self.list()]
        self._objects.clear()
        self._versions.clear()
        self._indexed.clear()
        self._tombstones.clear()
        self._index = {name: {} for name in self._indexers}
        return changes

    def _each(self, keys: Sequence[Key]) -> Iterator[R]:
        for key in keys:
            obj = self.get(key)
            if obj is not None:
                yield obj

    def _unpack(self, kept: R | bytes) -> R:
        return self._kind.model_validate_json(zlib.decompress(kept)) if isinstance(kept, bytes) else kept

    def _unindex(self, key: Key) -> None:
        for name, value in self._indexed.pop(key, ()):
            keys = self._index[name][value]
            keys.pop(key, None)
            if not keys:
                del self._index[name][value]


def _changes(old: R | None, new: R) -> Changes[R]:
    if old is None:
        return [Change("added", None, new)]
    if old.uid != new.uid:
        return [Change("deleted", old, None), Change("added", None, new)]
    return [Change("modified", old, new)]


def _owner_uids(obj: Resource) -> list[str]:
    return [owner.uid for owner in obj.metadata.owner_references]
