"""What kubectl showed of the objects of a namespace, from the first moment on.

A sentence such as "retrying in 1 s" stands in a status for a second only, so looking now and then would miss it. Here
everything is watched as `kubectl get --watch` does, and whatever a status or an Event ever said is kept.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Self

from tests.e2e.support.api_server import Watch
from tests.e2e.support.kubectl import Kubectl

OWN = "/apis/kubechain.humanlayer.dev/v1alpha1"
KINDS = ("llms", "agents", "mcpservers", "tasks", "taskruntoolcalls")


class Witness:
    """Watches while the context is entered."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        self._stack = ExitStack()
        self._lock = threading.Lock()
        self._told: dict[str, dict[str, None]] = {}
        self._latest: dict[tuple[str, str], dict[str, Any]] = {}

    def __enter__(self) -> Self:
        namespace = self._kubectl.namespace
        with ExitStack() as stack:
            for kind in KINDS:
                self._watch(stack, f"{OWN}/namespaces/{namespace}/{kind}")
            self._watch(stack, f"/api/v1/namespaces/{namespace}/events")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def told(self, *names: str) -> list[str]:
        """Every text that a status of, or an Event about, an object with one of these names has said."""
        with self._lock:
            return [text for name in names for text in self._told.get(name, ())]

    def latest(self, kind: str, name: str) -> dict[str, Any]:
        """The object as it was seen last, ``kind`` as in ``Task``; empty when it is not there."""
        with self._lock:
            return self._latest.get((kind, name), {})

    def _watch(self, stack: ExitStack, path: str) -> None:
        watching = self._kubectl.api_server.watch(path)
        reading = threading.Thread(target=self._read, args=(watching,), name=f"witness {path}", daemon=True)
        reading.start()
        stack.callback(reading.join, 10.0)
        stack.callback(watching.close)

    def _read(self, watching: Watch) -> None:
        for event in watching:
            seen = event["object"]
            name = seen["involvedObject"]["name"] if seen["kind"] == "Event" else seen["metadata"]["name"]
            said = [seen["reason"], seen["message"]] if seen["kind"] == "Event" else texts(seen.get("status"))
            with self._lock:
                self._told.setdefault(name, {}).update(dict.fromkeys(said))
                self._latest[seen["kind"], seen["metadata"]["name"]] = seen
                if event["type"] == "DELETED":
                    del self._latest[seen["kind"], seen["metadata"]["name"]]


def texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
