"""Reads objects as `kubectl get -o json` does, over a connection that stays open.

Tests look again and again until something is so. With a process for each look, looking took more of the machine than
what was looked at.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from kubechain_common.kube.kubeconfig import connect_by_kubeconfig

SECONDS = 30.0
GROUPS = ("/api/v1", "/apis/kubechain.humanlayer.dev/v1alpha1")
SELECTORS = {"-l": "labelSelector", "--selector": "labelSelector", "--field-selector": "fieldSelector"}

Json = dict[str, Any]


class NotReadableError(Exception):
    """What is left to kubectl: an unusual kubeconfig, kind or option."""


class Reader:
    """One API server, for any thread. The methods raise AssertionError when it refuses, and NotReadableError."""

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

    def _ask(self, path: str) -> Json:
        with self._lock:
            try:
                status, text = self._request(path)
            except (OSError, HTTPException):
                status, text = 0, b""
            if status in (0, 401):  # what stayed open has ended, or the server is another one meanwhile
                self._disconnect()
                try:
                    status, text = self._request(path)
                except (OSError, HTTPException) as error:
                    self._disconnect()
                    raise AssertionError(f"GET {path}: {error!r}") from error
        assert status == 200, f"GET {path}: {text.decode(errors='replace')}"
        body: Json = json.loads(text)
        return body

    def _request(self, path: str) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = connect(self._kubeconfig)
        connection, headers = self._connection
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection[0].close()
            self._connection = None


@functools.cache
def reader_of(kubeconfig: Path) -> Reader:
    """The one that all tests share."""
    return Reader(kubeconfig)


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
