"""SecretWatcher: knows the Secrets that specs refer to, and tells when one appears, changes or goes.

One watch per referenced Secret, selected by name, so that ``get`` and ``watch`` on Secrets are all the rights it
takes (never ``list``). A watch by name says nothing about a Secret that does not exist, hence the order: open the
watch first, then get. Whatever happens after the get is in the stream; what the stream tells twice, or late, is
recognised by its version.

Values stay in memory and appear in no log, error or ``repr``.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from kubechain_common.kube.backoff import Backoff
from kubechain_common.kube.client import KubeClient, decode_secret
from kubechain_common.kube.errors import GoneError, KubeError, NotFoundError
from kubechain_common.kube.paths import core_path, is_path_segment
from kubechain_common.telemetry.logging import get_logger

log = get_logger(__name__)

SecretKey = tuple[str, str]
"""(namespace, name)"""
Handler = Callable[[str, str], None]

_WATCH_SECONDS = (270, 300)
_HEALTHY_SECONDS = 1.0


@dataclass(slots=True)
class _Known:
    """The latest state of one Secret; ``data`` None = it does not exist."""

    version: int
    data: dict[str, str] | None = field(repr=False)


class SecretWatcher:
    """Keeps the referenced Secrets at hand."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._references: dict[str, frozenset[SecretKey]] = {}
        self._known: dict[SecretKey, _Known] = {}
        self._references_changed = asyncio.Event()
        self._handlers: list[Handler] = []

    def set_references(self, owner: str, refs: set[SecretKey]) -> None:
        """Replaces what ``owner`` (say, an object's uid) refers to; an empty set ends its interest."""
        if refs:
            self._references[owner] = frozenset(refs)
        else:
            self._references.pop(owner, None)
        self._references_changed.set()

    def add_handler(self, handler: Handler) -> None:
        """Calls ``handler(namespace, name)`` when a referenced Secret becomes known, changes or is deleted."""
        self._handlers.append(handler)

    def is_known(self, namespace: str, name: str) -> bool:
        """Whether the watch of this Secret has told yet if it exists. A handler call follows when it does."""
        return (namespace, name) in self._known

    def get(self, namespace: str, name: str) -> dict[str, str] | None:
        """The Secret's data by the latest word of its watch; None = missing, or (see ``is_known``) not known yet."""
        known = self._known.get((namespace, name))
        return known.data if known is not None else None

    async def read(self, namespace: str, name: str) -> dict[str, str] | None:
        """The Secret's data, asked of the API server unless its watch knows; None = missing.

        Raises ForbiddenError when we may not read it, UnavailableError when nobody can tell now.
        """
        if self.is_known(namespace, name) or not _can_exist((namespace, name)):
            return self.get(namespace, name)
        try:
            return await self._client.get_secret(namespace, name)
        except NotFoundError:
            return None

    async def run(self) -> None:
        """Watches what is referenced, until cancelled."""
        watching: dict[SecretKey, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._references_changed.clear()
                wanted = {ref for refs in self._references.values() for ref in refs if _can_exist(ref)}
                for key in watching.keys() - wanted:
                    watching.pop(key).cancel()
                    self._known.pop(key, None)
                for key in wanted - watching.keys():
                    watching[key] = group.create_task(self._follow(key))
                await self._references_changed.wait()

    async def _follow(self, key: SecretKey) -> None:
        backoff = Backoff(0.05, 0.5)
        loop = asyncio.get_running_loop()
        last_error = ""
        while True:
            started = loop.time()
            delay = 0.0
            try:
                await self._watch(key)
                last_error = ""
            except GoneError:
                pass
            except KubeError as error:
                delay = error.retry_after or 0.0
                if str(error) != last_error:
                    last_error = str(error)
                    log.warning("cannot watch a secret, retrying", namespace=key[0], name=key[1], error=last_error)
            if loop.time() - started > _HEALTHY_SECONDS:
                backoff.reset()
            await asyncio.sleep(max(delay, backoff.next()))

    async def _watch(self, key: SecretKey) -> None:
        namespace, name = key
        params = {"fieldSelector": f"metadata.name={name}", "timeoutSeconds": str(random.randint(*_WATCH_SECONDS))}
        async with self._client.watch(core_path("secrets", namespace), params) as stream:
            await self._get(key)
            async for event in stream:
                if event.type == "BOOKMARK":
                    continue
                version = int(event.object["metadata"]["resourceVersion"])
                self._learn(key, version, None if event.type == "DELETED" else decode_secret(event.object))

    async def _get(self, key: SecretKey) -> None:
        try:
            secret = await self._client.request("GET", core_path("secrets", *key))
        except NotFoundError:
            # An absence has no version of its own: newer than what is known, older than what the stream will say.
            known = self._known.get(key)
            self._learn(key, known.version if known else 0, None)
        else:
            self._learn(key, int(secret["metadata"]["resourceVersion"]), decode_secret(secret))

    def _learn(self, key: SecretKey, version: int, data: dict[str, str] | None) -> None:
        known = self._known.get(key)
        if known is not None and version < known.version:
            return
        self._known[key] = _Known(version, data)
        if known is not None and known.data == data:
            return
        for handler in self._handlers:
            try:
                handler(*key)
            except Exception:  # one bad handler must not end the watch
                log.exception("secret handler failed", namespace=key[0], name=key[1])


def _can_exist(key: SecretKey) -> bool:
    """Whether there can be a Secret of this name at all; names come from specs that anybody may write."""
    return all(is_path_segment(part) for part in key)
