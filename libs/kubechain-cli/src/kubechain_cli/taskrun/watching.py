"""A watch that goes on: one that breaks is taken up again where it was, or after a new list when the history is gone.

So whoever follows something survives a restart of the API server. A list may bring what was seen before once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from kubechain_cli.taskrun.errors import RunError
from kubechain_common.api.v1alpha1 import Resource
from kubechain_common.kube.backoff import Backoff
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import GoneError, KubeError
from kubechain_common.kube.paths import resource_path

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True)
class Deleted:
    """Stands for an object once it is gone; without a name, for the one that was selected and is not there."""

    namespace: str
    name: str


async def watch_objects(
    kube: KubeClient,
    kind: type[R],
    namespace: str,
    selector: dict[str, str],
    version: str,
    *,
    skip_unreadable: bool = False,
) -> AsyncIterator[R | Deleted]:
    """All objects that are selected, as they are and as they change, from this resourceVersion on (empty: from now).

    Raises a ``KubeError`` that waiting would not mend, and ``RunError`` for an object of another version of KubeChain
    unless those are to be skipped.
    """
    path, backoff = resource_path(kind, namespace), Backoff(0.05, 2.0)
    while True:
        try:
            if not version:
                answer = await kube.request("GET", path, params=selector)
                version = answer["metadata"]["resourceVersion"]
                for item in answer["items"]:
                    if sight := _parse(kind, item, skip_unreadable):
                        yield sight
                if not answer["items"] and "fieldSelector" in selector:
                    yield Deleted(namespace, "")
            async with kube.watch(path, {**selector, "resourceVersion": version}) as events:
                async for event in events:
                    backoff.reset()
                    version = _version_of(event.object)
                    if event.type == "DELETED":
                        meta = event.object["metadata"]
                        yield Deleted(meta["namespace"], meta["name"])
                    elif event.type != "BOOKMARK" and (sight := _parse(kind, event.object, skip_unreadable)):
                        yield sight
        except GoneError:
            version = ""
        except KubeError as error:
            if not error.retryable:
                raise
            await asyncio.sleep(backoff.next())


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
