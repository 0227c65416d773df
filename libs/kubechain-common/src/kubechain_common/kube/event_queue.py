"""The Events that wait to be written: bounded, and coalescing while they wait. Pure data, no I/O.

An event's identity is what it says about which object: "the same again" only raises a count. Its name ends in the
nanosecond of its first sighting, because kubectl orders what happened within one second by name.

A burst of Tasks leaves thousands of Events here for a minute, so a waiting one is its JSON and little else.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from kubechain_common.api.v1alpha1.meta import API_VERSION, Resource

EventType = Literal["Normal", "Warning"]

MAX_MESSAGE = 1024
_MAX_NAME = 253


@dataclass(slots=True)
class PendingEvent:
    """``count`` sightings between ``first`` and ``last`` that the API server does not know of yet."""

    identity: bytes
    component: str
    namespace: str
    object_name: str
    body: bytes = field(repr=False)
    first: datetime
    last: datetime
    object_created: datetime | None = None
    count: int = 1

    @property
    def name(self) -> str:
        """``<object>.<16 hex>``, in the order of the first sightings."""
        suffix = f".{int(self.first.timestamp()) * 10**9 + self.first.microsecond * 1000:016x}"
        return self.object_name[: _MAX_NAME - len(suffix)].rstrip("-.") + suffix

    def build_new(self) -> dict[str, Any]:
        """The Event to create."""
        metadata = {"name": self.name, "namespace": self.namespace}
        times = {"firstTimestamp": timestamp(self.first), "lastTimestamp": timestamp(self.last)}
        return {**orjson.loads(self.body), **times, "metadata": metadata, "count": self.count}

    def build_bump(self, known_count: int) -> dict[str, Any]:
        """The merge patch of an Event that was seen ``known_count`` times before."""
        return {"count": known_count + self.count, "lastTimestamp": timestamp(self.last)}


class EventQueue:
    """First in, first out; over its capacity the oldest goes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._pending: OrderedDict[bytes, PendingEvent] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pending)

    def put(self, event: PendingEvent) -> bool:
        """Adds the event to its like, or at the end; False when another event had to be dropped for it."""
        waiting = self._pending.get(event.identity)
        if waiting is not None:
            waiting.count += event.count
            waiting.last = event.last
            return True
        self._pending[event.identity] = event
        if len(self._pending) <= self._capacity:
            return True
        self._pending.popitem(last=False)
        return False

    def peek(self) -> PendingEvent | None:
        """What ``take`` would take."""
        return next(iter(self._pending.values()), None)

    def take(self) -> PendingEvent | None:
        return self._pending.popitem(last=False)[1] if self._pending else None


def build_event(
    obj: Resource, component: str, event_type: EventType, reason: str, message: str, now: datetime
) -> PendingEvent:
    """A core/v1 Event about ``obj``, as ``kubectl describe`` shows it; a long message is cut."""
    message = message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 3] + "..."
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": obj.crd.kind,
            "namespace": obj.namespace,
            "name": obj.name,
            "uid": obj.uid,
        },
        "type": event_type,
        "reason": reason,
        "message": message,
        "source": {"component": component},
        "reportingComponent": component,
    }
    return PendingEvent(
        identity=identity_of(body),
        component=component,
        namespace=obj.namespace,
        object_name=obj.name,
        body=bytes(memoryview(orjson.dumps(body))),  # its own result holds on to 4 KB
        first=now,
        last=now,
        object_created=obj.metadata.creation_timestamp,
    )


def identity_of(body: Mapping[str, Any]) -> bytes:
    """A digest of the same words about the same object, whether about to be written or read back."""
    source = body.get("source") or {}
    parts = (source.get("component"), body.get("type"), body.get("reason"), body.get("message"))
    text = "\x00".join(str(part) for part in ((body.get("involvedObject") or {}).get("uid"), *parts))
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=16).digest()


def timestamp(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
