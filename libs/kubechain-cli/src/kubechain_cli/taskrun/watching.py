"""A watch that goes on: one that breaks is taken up again where it was, or after a new list when the history is gone.

So whoever follows something survives a restart of the API server, and is told that it waits for one. A list may bring
what was seen before once more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from kubechain_cli.taskrun.errors import RunError
from kubechain_common.api.v1alpha1 import Resource
from kubechain_common.kube.backoff import Backoff
from kubechain_common.kube.client import KubeClient, ListPage
from kubechain_common.kube.errors import GoneError, KubeError, UnauthorizedError
from kubechain_common.kube.paths import resource_path

R = TypeVar("R", bound=Resource)

_FAILURES_TO_TELL = 2
"""Attempts in a row: a watch breaks off now and then, and is taken up by the next one."""


@dataclass(frozen=True)
class Deleted:
    """Stands for an object once it is gone; without a name, for the one that was selected and is not there."""

    namespace: str
    name: str


class Outage:
    """Tells once why there is no news, however often and by however many watches it was tried."""

    def __init__(self, tell: Callable[[KubeError], None]) -> None:
        self._tell = tell
        self._failures: Counter[str] = Counter()
        self._told = False

    def note_failure(self, path: str, error: KubeError) -> None:
        """Notes that this watch could not be begun, or broke off."""
        self._failures[path] += 1
        if self._failures[path] >= _FAILURES_TO_TELL and not self._told:
            self._told = True
            self._tell(error)

    def note_news(self, path: str) -> None:
        """Notes that this watch has brought something."""
        del self._failures[path]
        self._told = self._told and bool(self._failures)


async def watch_objects(
    kube: KubeClient,
    kind: type[R],
    namespace: str,
    selector: dict[str, str],
    version: str,
    outage: Outage,
    *,
    skip_unreadable: bool = False,
) -> AsyncIterator[R | Deleted]:
    """All objects that are selected, as they are and as they change, from this resourceVersion on (empty: from now).

    Raises a ``KubeError`` that waiting would not mend, and any when not even the first list succeeds: it may be the
    wrong cluster. Raises ``RunError`` for an object of another version of KubeChain unless those are to be skipped.
    """
    path, backoff, begun = resource_path(kind, namespace), Backoff(0.05, 2.0), bool(version)
    while True:
        try:
            if not version:
                listed, found = "", False
                async for page in _list(kube, path, selector):
                    begun, listed, found = True, page.resource_version, found or bool(page.items)
                    for item in page.items:
                        if sight := _parse(kind, item, skip_unreadable):
                            yield sight
                version = listed
                if not found and "fieldSelector" in selector:
                    yield Deleted(namespace, "")
            async with kube.watch(path, {**selector, "resourceVersion": version}) as events:
                async for event in events:
                    backoff.reset()
                    outage.note_news(path)
                    version = _version_of(event.object)
                    if event.type == "DELETED":
                        meta = event.object["metadata"]
                        yield Deleted(meta["namespace"], meta["name"])
                    elif event.type != "BOOKMARK" and (sight := _parse(kind, event.object, skip_unreadable)):
                        yield sight
            await asyncio.sleep(backoff.next())  # one that is closed at once again and again is not hammered
        except GoneError:
            version = ""
        except KubeError as error:
            if not (begun and await _may_pass(kube, error)):
                raise
            outage.note_failure(path, error)
            await asyncio.sleep(backoff.next())


async def _list(kube: KubeClient, path: str, selector: dict[str, str]) -> AsyncIterator[ListPage]:
    """Page by page: one answer with every object of a cluster may be more than it, or we, can take."""
    label, field, token = selector.get("labelSelector", ""), selector.get("fieldSelector", ""), ""
    while True:
        page = await kube.list_page(path, continue_token=token, label_selector=label, field_selector=field)
        yield page
        token = page.continue_token
        if not token:
            return


async def _may_pass(kube: KubeClient, error: KubeError) -> bool:
    """Whether the next attempt may succeed; not with the credentials that were just refused."""
    if not isinstance(error, UnauthorizedError):
        return error.retryable
    try:
        return await kube.renew_credentials()
    except KubeError as not_renewed:
        return not_renewed.retryable


def _parse(kind: type[R], item: dict[str, Any], skip_unreadable: bool) -> R | None:
    try:
        return kind.model_validate(item)
    except ValidationError as error:
        if skip_unreadable:
            return None
        raise RunError(
            f"This version of the command cannot read the {kind.crd.kind} {item['metadata']['name']!r}."
        ) from error


def _version_of(item: dict[str, Any]) -> str:
    return str(item["metadata"]["resourceVersion"])
