"""What tests ask of the API server themselves: objects, as `kubectl get -o json` reads them, namespaces and watches.

Tests look again and again until something is so, and each has a namespace of its own. With a process of kubectl for
each look, looking took more of the machine than what was looked at.
"""

from __future__ import annotations

import functools
import json
import math
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.e2e.support.conditions import Predicate

from kubechain_common.kube.kubeconfig import connect_by_kubeconfig
from kubechain_common.testing.eventually import eventually

SECONDS = 30.0
GROUPS = ("/api/v1", "/apis/kubechain.humanlayer.dev/v1alpha1")
SELECTORS = {"-l": "labelSelector", "--selector": "labelSelector", "--field-selector": "fieldSelector"}

Json = dict[str, Any]


class NotReadableError(Exception):
    """What is left to kubectl: an unusual kubeconfig, kind or option."""


class ApiServer:
    """One of them, for any thread. The methods raise AssertionError when it refuses, and NotReadableError."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._lock = threading.Lock()
        self._connection: tuple[HTTPConnection, dict[str, str]] | None = None
        self._kinds: dict[str, Json] = {}

    def get(self, namespace: str, kind: str, name: str) -> Json:
        found = self._ask(f"{self._path(namespace, kind)}/{name}")
        return without_managed_fields(found)

    def list(self, namespace: str, kind: str, options: Sequence[str]) -> list[Json]:
        query, everywhere = parse_options(options)
        found = self._ask(f"{self._path('' if everywhere else namespace, kind)}?{urlencode(query)}")
        # In a list, they do not say themselves what they are.
        head = {"apiVersion": found["apiVersion"], "kind": found["kind"].removesuffix("List")}
        return [{**head, **without_managed_fields(item)} for item in found["items"]]

    def await_object(self, namespace: str, kind: str, name: str, holds: Predicate, seconds: float) -> None:
        """Returns when that holds for the object. Raises AssertionError when it does not within so many seconds."""
        path, deadline = self._path(namespace, kind), time.monotonic() + seconds

        def sees_it() -> bool:
            left = max(deadline - time.monotonic(), 0.1)
            query = {"fieldSelector": f"metadata.name={name}", "timeoutSeconds": str(math.ceil(left))}
            with suppress(OSError, HTTPException), closing(self.watch(path, silence=left, **query)) as watch:
                return any(event["type"] in ("ADDED", "MODIFIED") and holds(event["object"]) for event in watch)
            return False

        eventually(sees_it, seconds, what=f"{kind}/{name}")

    def create_namespace(self, name: str) -> None:
        self._ask("/api/v1/namespaces", "POST", {"metadata": {"name": name}}, also=409)

    def delete_namespace(self, name: str) -> None:
        """It goes some time later, with all that is in it."""
        self._ask(f"/api/v1/namespaces/{name}", "DELETE", also=404)

    def delete_events(self, namespace: str) -> None:
        """All of the namespace in one request."""
        self._ask(f"/api/v1/namespaces/{namespace}/events", "DELETE")

    def watch(self, path: str, silence: float | None = None, **query: str) -> Watch:
        """What happens below ``path`` from now on, begun with what is there; it ends after ``silence`` seconds of it.

        Raises OSError and HTTPException.
        """
        return Watch(*connect(self._kubeconfig), f"{path}?{urlencode({'watch': '1', **query})}", silence)

    def _path(self, namespace: str, kind: str) -> str:
        if kind not in self._kinds:
            self._kinds = self._discover()
        if kind not in self._kinds:
            raise NotReadableError(kind)
        found = self._kinds[kind]
        within = f"/namespaces/{namespace}" if found["namespaced"] and namespace else ""
        return f"{found['group']}{within}/{found['name']}"

    def _discover(self) -> dict[str, Json]:
        """The kinds by every name they have."""
        kinds = [{**kind, "group": group} for group in GROUPS for kind in self._ask(group)["resources"]]
        return {
            name: kind
            for kind in kinds
            if "/" not in kind["name"]
            for name in (kind["name"], kind["singularName"], *kind.get("shortNames", ()))
        }

    def _ask(self, path: str, method: str = "GET", body: Json | None = None, *, also: int = 0) -> Json:
        """``also`` is a status that is as good: the answer to a request that is sent again."""
        with self._lock:
            try:
                status, text = self._request(method, path, body)
            except (OSError, HTTPException):
                status, text = 0, b""
            if status in (0, 401):  # what stayed open has ended, or the server is another one meanwhile
                self._disconnect()
                try:
                    status, text = self._request(method, path, body)
                except (OSError, HTTPException) as error:
                    self._disconnect()
                    raise AssertionError(f"{method} {path}: {error!r}") from error
        assert 200 <= status < 300 or status == also, f"{method} {path}: {text.decode(errors='replace')}"
        answer: Json = json.loads(text)
        return answer

    def _request(self, method: str, path: str, body: Json | None) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = connect(self._kubeconfig)
        connection, headers = self._connection
        data, kind = (None, {}) if body is None else (json.dumps(body), {"Content-Type": "application/json"})
        connection.request(method, path, data, {**headers, **kind})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection[0].close()
            self._connection = None


class Watch:
    """An open watch: its events as they come, until it is closed, from another thread, or the server ends it."""

    def __init__(
        self, connection: HTTPConnection, headers: Mapping[str, str], path: str, silence: float | None
    ) -> None:
        with ExitStack() as stack:
            stack.callback(connection.close)
            connection.request("GET", path, headers=headers)
            self._answer = connection.getresponse()
            if self._answer.status != 200:
                raise HTTPException(f"watch {path}: {self._answer.read().decode(errors='replace')}")
            self._socket = connection.sock
            self._socket.settimeout(silence)
            stack.pop_all()

    def __iter__(self) -> Iterator[Json]:
        with suppress(OSError, HTTPException), self._socket, self._answer:
            for line in self._answer:
                yield json.loads(line)

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


@functools.cache
def api_server_of(kubeconfig: Path) -> ApiServer:
    """The one that all tests share."""
    return ApiServer(kubeconfig)


def connect(kubeconfig: Path) -> tuple[HTTPConnection, dict[str, str]]:
    """The connection, which opens with the first request, and the headers of each. Raises NotReadableError."""
    access = connect_by_kubeconfig(str(kubeconfig))
    if access is None or access.proxy or access.server_hostname or access.renew:
        raise NotReadableError(str(kubeconfig))
    address = urlsplit(access.host)
    connection = HTTPSConnection(address.hostname or "", address.port, timeout=SECONDS, context=access.ssl_context)
    return connection, {"Authorization": access.authorization} if access.authorization else {}


def parse_options(options: Sequence[str]) -> tuple[dict[str, str], bool]:
    """(the query, whether every namespace is meant) of `kubectl get`'s options. Raises NotReadableError."""
    query, everywhere, rest = {}, False, iter(options)
    for option in rest:
        name, _, value = option.partition("=")
        if name in ("-A", "--all-namespaces"):
            everywhere = True
        elif name in SELECTORS:
            query[SELECTORS[name]] = value or next(rest, "")
        else:
            raise NotReadableError(option)
    return query, everywhere


def without_managed_fields(obj: Json) -> Json:
    """kubectl does not show who wrote what, either."""
    obj["metadata"].pop("managedFields", None)
    return obj
