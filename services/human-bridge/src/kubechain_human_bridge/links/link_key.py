"""The key that signs links: one Secret beside the service, made by whichever replica comes first.

All replicas read the same key by watching its Secret, which outlives them. Deleting the Secret revokes every link at
once, and a new key follows by itself. Until the watch has told whether there is a key, no signature counts as good or
as bad.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress

from kubechain_common.kube.backoff import Backoff
from kubechain_common.kube.client import MERGE_PATCH, KubeClient
from kubechain_common.kube.errors import AlreadyExistsError, KubeError, UnavailableError
from kubechain_common.kube.paths import core_path
from kubechain_common.kube.secrets import SecretWatcher
from kubechain_common.telemetry.logging import get_logger

SECRET_NAME = "kubechain-human-bridge"
SECRET_KEY = "link-signing-key"

_OWNER = "link-key"
_BYTES = 32

_log = get_logger(__name__)


class KeyUnknownError(UnavailableError):
    """It is not known yet whether there is a key, so nobody is turned away for want of one."""


class LinkKey:
    """The key as the watch of its Secret last told it."""

    def __init__(self, kube: KubeClient, watched: SecretWatcher, namespace: str) -> None:
        self._kube = kube
        self._watched = watched
        self._namespace = namespace
        self._looked = asyncio.Event()
        self._there = asyncio.Event()
        watched.add_handler(self._handle_change)
        watched.set_references(_OWNER, {(namespace, SECRET_NAME)})

    @property
    def known(self) -> bool:
        """Whether the watch has told yet if there is a key."""
        return self._watched.is_known(self._namespace, SECRET_NAME)

    @property
    def current(self) -> str:
        """The key; empty while there is none, and then no link is made and none is good. Raises KeyUnknownError."""
        if not self.known:
            raise KeyUnknownError(f'it is not known yet whether Secret "{SECRET_NAME}" of human-bridge exists')
        return (self._watched.get(self._namespace, SECRET_NAME) or {}).get(SECRET_KEY, "")

    async def wait(self, seconds: float) -> bool:
        """Waits for the key; whether it is there within so many seconds. The watcher and ``run`` have to run."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._there.wait()
        return self.known and bool(self.current)

    async def run(self) -> None:
        """Makes the key whenever it is missing, until cancelled. The watcher has to run."""
        while True:
            await self._looked.wait()
            self._looked.clear()
            if not self.current:
                await self._make()

    async def _make(self) -> None:
        backoff = Backoff(0.5, 30.0)
        while not self.current:
            try:
                await self._create()
            except KubeError as error:
                _log.warning("can not make the key of the links, trying again", error=str(error))
                await asyncio.sleep(backoff.next())
            else:
                return

    async def _create(self) -> None:
        path = core_path("secrets", self._namespace)
        data = {SECRET_KEY: secrets.token_urlsafe(_BYTES)}
        body = {"metadata": {"name": SECRET_NAME}, "type": "Opaque", "stringData": data}
        try:
            await self._kube.request("POST", path, body=body)
        except AlreadyExistsError:
            if self._watched.get(self._namespace, SECRET_NAME) is None:
                return  # another replica's; the watch brings it
            await self._refill(data)

    async def _refill(self, data: dict[str, str]) -> None:
        """Puts a key into the Secret, which has none; the version keeps two replicas from making one each."""
        path = core_path("secrets", self._namespace, SECRET_NAME)
        secret = await self._kube.request("GET", path)
        if not (secret.get("data") or {}).get(SECRET_KEY):
            guard = {"resourceVersion": secret["metadata"]["resourceVersion"]}
            await self._kube.request(
                "PATCH", path, body={"metadata": guard, "stringData": data}, content_type=MERGE_PATCH
            )

    def _handle_change(self, namespace: str, name: str) -> None:
        if (namespace, name) == (self._namespace, SECRET_NAME):
            self._looked.set()
            if self.current:
                self._there.set()
