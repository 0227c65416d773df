"""The API server: objects with uid, resourceVersion and generation, and a history that watches follow at their pace.

Mirrors, at the level of requests, so that the real KubeClient and everything above it run unchanged:

* a create of a name that exists is AlreadyExists; ``status`` is not taken from a create, its defaults are filled in;
* an update, or a patch, that carries a resourceVersion is a Conflict once the object has changed; one that changes
  nothing gives no new version; what is for the object leaves the status alone and the other way round;
* a delete may be bound to a uid; objects whose owner is gone go too, but some time later;
* a watch tells every change of its kind in order, late by as much as the model likes, or breaks off with 410.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.model.effects import PROCESS, Effects, Process

from kubechain_common.kube.client import JSON, KubeClient, ListPage
from kubechain_common.kube.errors import GoneError, InvalidError, UnavailableError, build_status_error
from kubechain_common.kube.watch import WatchEvent

Wire = dict[str, Any]
Key = tuple[str, str, str]
"""(plural, namespace, name)"""


@dataclass(frozen=True)
class Write:
    """A change of one object; ``new`` is None when it was deleted."""

    plural: str
    old: Wire | None
    new: Wire | None
    by: str


@dataclass(frozen=True)
class Snapshot:
    """What etcd held at a moment."""

    objects: Mapping[Key, Wire]
    version: int


class ApiServer:
    """All objects, and what happened to them."""

    def __init__(self, clock: Callable[[], str]) -> None:
        self._clock = clock
        self._version = 0
        self._uids = 0
        self.objects: dict[Key, Wire] = {}
        self.history: dict[str, list[WatchEvent]] = {}
        self.observers: list[Callable[[Write], None]] = []
        self.writes = 0

    @property
    def version(self) -> int:
        return self._version

    def find(self, plural: str, name: str, namespace: str = "default") -> Wire | None:
        return self.objects.get((plural, namespace, name))

    def all(self, plural: str) -> list[Wire]:
        return [obj for (kind, _, _), obj in self.objects.items() if kind == plural]

    # --- verbs ---

    def handle(self, method: str, path: str, body: Mapping[str, Any] | None, by: str) -> Wire:
        key, subresource = parse_path(path)
        match method:
            case "GET":
                return self._existing(key)
            case "POST":
                assert body is not None
                return self.create((key[0], key[1], str(body["metadata"]["name"])), body, by)
            case "PUT":
                assert body is not None
                assert subresource == "status", "controllers replace nothing else"
                return self.update_status(key, body, by)
            case "PATCH":
                assert subresource == "", "controllers replace a status"
                return self.patch(key, body or {}, by)
            case "DELETE":
                return self.delete(key, (body or {}).get("preconditions") or {}, by)
        raise AssertionError(f"{method} {path}")

    def create(self, key: Key, body: Mapping[str, Any], by: str) -> Wire:
        if key in self.objects:
            raise _error(409, f"{key[2]} already exists", "AlreadyExists")
        self._uids += 1
        metadata = {
            **body["metadata"],
            "namespace": key[1],
            "uid": f"uid-{self._uids}-{key[2]}",
            "generation": 1,
            "creationTimestamp": self._clock(),
        }
        obj = {**{k: v for k, v in body.items() if k != "status"}, "metadata": metadata}
        if key[0] == "taskruntoolcalls":
            obj["status"] = {"phase": "Pending"}
        return self._store(key, None, obj, by)

    def update_status(self, key: Key, body: Mapping[str, Any], by: str) -> Wire:
        old = self._existing_at(key, body["metadata"]["resourceVersion"])
        new = {**old, "status": body["status"]}
        return old if new == old else self._store(key, old, new, by)

    def patch(self, key: Key, body: Mapping[str, Any], by: str, subresource: str = "") -> Wire:
        old = self._existing_at(key, (body.get("metadata") or {}).get("resourceVersion"))
        uid = (body.get("metadata") or {}).get("uid")
        if uid is not None and old["metadata"]["uid"] != uid:
            raise _error(409, f"{key[2]} has another uid", "Conflict")
        fields = ["status"] if subresource == "status" else [k for k in body if k not in ("status", "metadata")]
        new = {**old, **{k: merge(old.get(k), body[k]) for k in fields if k in body}}
        if new == old:
            return old
        if new.get("spec") != old.get("spec"):
            new["metadata"] = {**new["metadata"], "generation": old["metadata"]["generation"] + 1}
        return self._store(key, old, new, by)

    def delete(self, key: Key, preconditions: Mapping[str, str], by: str) -> Wire:
        old = self._existing(key)
        for field, wanted in preconditions.items():
            if old["metadata"][field] != wanted:
                raise _error(409, f"{key[2]} has another {field}", "Conflict")
        del self.objects[key]
        self._version += 1
        last = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self._version)}}
        self.history.setdefault(key[0], []).append(WatchEvent("DELETED", last))
        self._tell(Write(key[0], old, None, by))
        return {}

    def save(self) -> Snapshot:
        return Snapshot(dict(self.objects), self._version)

    def restore(self, snapshot: Snapshot) -> None:
        """All objects, versions and history are what they were then; whoever watches now is to be gone."""
        self.objects, self._version = dict(snapshot.objects), snapshot.version
        for events in self.history.values():
            events[:] = [e for e in events if int(e.object["metadata"]["resourceVersion"]) <= snapshot.version]

    def garbage(self) -> list[Key]:
        """What the garbage collector would delete now."""
        alive = {obj["metadata"]["uid"] for obj in self.objects.values()}
        return [
            key
            for key, obj in self.objects.items()
            if any(owner["uid"] not in alive for owner in obj["metadata"].get("ownerReferences", ()))
        ]

    def is_current(self, obj: Wire, version: str) -> bool:
        return bool(obj["metadata"]["resourceVersion"] == version)

    def _existing(self, key: Key) -> Wire:
        obj = self.objects.get(key)
        if obj is None:
            raise _error(404, f"{key[2]} not found", "NotFound", {"name": key[2]})
        return obj

    def _existing_at(self, key: Key, version: str | None) -> Wire:
        obj = self._existing(key)
        if version is not None and not self.is_current(obj, version):
            raise _error(409, f"{key[2]} has been modified", "Conflict")
        return obj

    def _store(self, key: Key, old: Wire | None, obj: Wire, by: str) -> Wire:
        self._version += 1
        self.writes += 1
        stored = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}}
        self.objects[key] = stored
        self.history.setdefault(key[0], []).append(WatchEvent("MODIFIED" if old else "ADDED", stored))
        self._tell(Write(key[0], old, stored, by))
        return stored

    def _tell(self, write: Write) -> None:
        for observer in self.observers:
            observer(write)


class ModelWatch:
    """An open watch: it has told ``position`` changes of its kind, and tells the next when the model lets it."""

    def __init__(self, server: ApiServer, plural: str, version: int, process: Process, label: str) -> None:
        self._history = server.history.setdefault(plural, [])
        self._label = label
        self.plural = plural
        self.process = process
        self.broken = False
        self.position = next(
            (i for i, e in enumerate(self._history) if int(e.object["metadata"]["resourceVersion"]) > version),
            len(self._history),
        )
        self._granted = self.position
        self._bell = asyncio.Event()

    @property
    def behind(self) -> bool:
        return self._next_due() is not None

    def advance(self) -> None:
        due = self._next_due()
        if due is not None:
            self._granted = due + 1
        self._bell.set()

    def _next_due(self) -> int | None:
        """What lacks the label that the watch selects by is nothing to tell."""
        for place in range(self._granted, len(self._history)):
            if selects(self._label, self._history[place].object):
                return place
        return None

    def break_off(self) -> None:
        self.broken = True
        self._bell.set()

    def __aiter__(self) -> ModelWatch:
        return self

    async def __anext__(self) -> WatchEvent:
        while self.position >= self._granted or self.broken:
            if self.broken:
                raise GoneError("too old resource version")
            self._bell.clear()
            await self._bell.wait()
        while not selects(self._label, self._history[self.position].object):
            self.position += 1
        event = self._history[self.position]
        self.position += 1
        return WatchEvent(event.type, _copy(event.object))


class ModelKube(KubeClient):
    """The real client over the model instead of HTTP."""

    def __init__(self, server: ApiServer, effects: Effects, watches: list[ModelWatch]) -> None:
        super().__init__("model")
        self._server = server
        self._effects = effects
        self._watches = watches

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
    ) -> Wire:
        key, subresource = parse_path(path)
        name = key[2] or (body or {}).get("metadata", {}).get("name", "")
        by = PROCESS.get().name
        answer: Wire = await self._effects.perform(
            f"{method} {key[0]}/{name}{'/' + subresource if subresource else ''}",
            lambda: self._server.handle(method, path, body, by),
            failure=lambda: UnavailableError(f"{method} {path}: no answer"),
            invalid=None if method in ("GET", "DELETE") else lambda: InvalidError(f"{method} {path}: 422 denied"),
        )
        return answer

    async def list_page(
        self, path: str, *, label_selector: str = "", field_selector: str = "", **paging: Any
    ) -> ListPage:
        """Everything on one page."""
        assert not field_selector, "only Events are selected by fields, and the model has none"
        (plural, namespace, _), _ = parse_path(path)
        found = [
            _copy(o)
            for o in self._server.all(plural)
            if namespace in ("", o["metadata"]["namespace"]) and selects(label_selector, o)
        ]
        return ListPage(found, str(self._server.version), "")

    @asynccontextmanager
    async def watch(self, path: str, params: Mapping[str, str]) -> AsyncIterator[Any]:
        (plural, _, _), _ = parse_path(path)
        label = params.get("labelSelector", "")
        stream = ModelWatch(self._server, plural, int(params.get("resourceVersion", 0)), PROCESS.get(), label)
        self._watches.append(stream)
        try:
            yield stream
        finally:
            self._watches.remove(stream)


def selects(label: str, obj: Wire) -> bool:
    """Of the selectors there are, the model knows the one that our informers use: that a label exists."""
    return not label or label in (obj["metadata"].get("labels") or {})


def parse_path(path: str) -> tuple[Key, str]:
    """((plural, namespace, name), subresource)"""
    parts = path.strip("/").split("/")
    parts = parts[3:] if parts[0] == "apis" else parts[2:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 1:
        namespace, parts = parts[1], parts[2:]
    plural, name, subresource = (*parts, "", "")[:3]
    return (plural, namespace, name), subresource


def _copy(obj: Wire) -> Wire:
    """What is sent belongs to whoever gets it: an informer may strip it."""
    return {key: dict(part) if isinstance(part, dict) else part for key, part in obj.items()}


def merge(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return patch
    base = dict(old) if isinstance(old, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            base.pop(key, None)
        else:
            base[key] = merge(base.get(key), value)
    return base


def _error(code: int, message: str, reason: str, details: dict[str, str] | None = None) -> Exception:
    return build_status_error(
        "model", {"code": code, "message": message, "reason": reason, "details": details or {"name": "x"}}
    )
