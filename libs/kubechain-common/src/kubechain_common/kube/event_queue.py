"""The Events that wait to be written: bounded, and coalescing while they wait. Pure data, no I/O.

An Event's name is a function of what it says about which object. So "the same again" is the same name: in the queue
it only raises a count, and on the API server it finds the Event of an earlier process.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from kubechain_common.api.v1alpha1.meta import API_VERSION, Resource

EventType = Literal["Normal", "Warning"]

MAX_MESSAGE = 1024
_MAX_NAME = 253


@dataclass(slots=True)
class PendingEvent:
    """``count`` sightings between ``first`` and ``last`` that the API server does not know of yet."""

    name: str
    namespace: str
    body: Mapping[str, Any] = field(repr=False)
    first: datetime
    last: datetime
    count: int = 1

    def build_new(self) -> dict[str, Any]:
        """The Event to create."""
        times = {"firstTimestamp": timestamp(self.first), "lastTimestamp": timestamp(self.last)}
        return {**self.body, **times, "count": self.count}

    def build_bump(self, known_count: int) -> dict[str, Any]:
        """The merge patch of an Event that was seen ``known_count`` times before."""
        return {"count": known_count + self.count, "lastTimestamp": timestamp(self.last)}


class EventQueue:
    """First in, first out; over its capacity the oldest goes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._pending: OrderedDict[str, PendingEvent] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pending)

    def put(self, event: PendingEvent) -> bool:
        """Adds the event to its like, or at the end; False when another event had to be dropped for it."""
        waiting = self._pending.get(event.name)
        if waiting is not None:
            waiting.count += event.count
            waiting.last = event.last
            return True
        self._pending[event.name] = event
        if len(self._pending) <= self._capacity:
            return True
        self._pending.popitem(last=False)
        return False

    def take(self) -> PendingEvent | None:
        return self._pending.popitem(last=False)[1] if self._pending else None


def build_event(
    obj: Resource, component: str, event_type: EventType, reason: str, message: str, now: datetime
) -> PendingEvent:
    """A core/v1 Event about ``obj``, as ``kubectl describe`` shows it; a long message is cut."""
    message = message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 3] + "..."
    name = event_name(obj, component, event_type, reason, message)
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": obj.namespace},
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
    return PendingEvent(name=name, namespace=obj.namespace, body=body, first=now, last=now)


def event_name(obj: Resource, component: str, event_type: str, reason: str, message: str) -> str:
    """``<object>.<16 hex>``: the same words about the same object always get the same name."""
    identity = "\x00".join((obj.uid, component, event_type, reason, message))
    suffix = "." + hashlib.sha256(identity.encode()).hexdigest()[:16]
    return obj.name[: _MAX_NAME - len(suffix)].rstrip("-.") + suffix


def timestamp(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
