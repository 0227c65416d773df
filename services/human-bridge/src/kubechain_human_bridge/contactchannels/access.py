"""The way from a ContactChannel to a channel that can be used: its spec, its Secrets, its client.

One client is kept per ContactChannel, for as long as neither the spec nor a secret changes; one that was replaced is
closed when its last user has left. What stands in the way is a ``ChannelNotUsableError`` with a sentence, and
``changed`` tells when it is worth another look.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from kubechain_common.api.secret_values import SecretProblem
from kubechain_common.api.v1alpha1 import ContactChannel
from kubechain_common.kube.errors import ForbiddenError
from kubechain_common.messages import ObjectRef
from kubechain_common.runtime.pulse import Pulse
from kubechain_human_bridge.channels.base import Channel
from kubechain_human_bridge.channels.errors import ChannelRefusedError
from kubechain_human_bridge.contactchannels.secrets import ChannelSecrets, resolve_secrets, secrets_of


class ChannelNotUsableError(ChannelRefusedError):
    """The channel cannot be used as it is configured; the text says what to do about it."""


class ChannelStore(Protocol):
    """The informer's view of ContactChannels."""

    def get(self, namespace: str, name: str) -> ContactChannel | None: ...


class SecretStore(Protocol):
    """The watched Secrets; None is a Secret that does not exist."""

    async def read(self, namespace: str, name: str) -> Mapping[str, str] | None: ...


BuildChannel = Callable[[ContactChannel, Mapping[str, str]], Channel]


@dataclass(slots=True)
class _Client:
    generation: int
    digest: str
    channel: Channel
    users: int = 0
    retired: bool = False


class ChannelAccess:
    """Finds ContactChannels, their secrets and their clients. Changes are reported to it by ``notify_changed``."""

    def __init__(self, channels: ChannelStore, secrets: SecretStore, build: BuildChannel) -> None:
        self._channels = channels
        self._secrets = secrets
        self._build = build
        self._clients: dict[str, _Client] = {}
        self._changes = Pulse()

    def find(self, ref: ObjectRef) -> ContactChannel | None:
        """The very channel of ``ref``, not a later one of the same name."""
        channel = self._channels.get(ref.namespace, ref.name)
        return channel if channel is not None and channel.uid == ref.uid else None

    def find_named(self, namespace: str, name: str) -> ContactChannel | None:
        """The channel that has this name now."""
        return self._channels.get(namespace, name)

    async def read_secrets(self, channel: ContactChannel) -> ChannelSecrets | SecretProblem:
        """The channel's secrets.

        Raises:
            KubeError: a Secret is not watched yet and the API server could not be asked for it.
        """
        read: dict[tuple[str, str], Mapping[str, str] | None] = {}
        for namespace, name in sorted(secrets_of(channel)):
            try:
                read[namespace, name] = await self._secrets.read(namespace, name)
            except ForbiddenError:
                return SecretProblem(f'human-bridge may not read Secret "{name}": grant it get and watch on secrets')
        return resolve_secrets(channel, read)

    @asynccontextmanager
    async def open(self, channel: ContactChannel) -> AsyncIterator[Channel]:
        """The client of the channel as it is now, open until the block ends.

        Raises:
            ChannelRefusedError: its spec or a Secret does not allow to use it.
            KubeError: the API server could not be asked for a Secret.
        """
        secrets = await self.read_secrets(channel)
        if isinstance(secrets, SecretProblem):
            raise ChannelNotUsableError(secrets.detail)
        async with self.open_with(channel, secrets) as client:
            yield client

    @asynccontextmanager
    async def open_with(self, channel: ContactChannel, secrets: ChannelSecrets) -> AsyncIterator[Channel]:
        """The client for these secrets. Raises ChannelRefusedError."""
        client = await self._client_for(channel, secrets)
        client.users += 1
        try:
            yield client.channel
        finally:
            client.users -= 1
            await _close_unused(client)

    async def _client_for(self, channel: ContactChannel, secrets: ChannelSecrets) -> _Client:
        generation, digest = channel.metadata.generation, secrets.digest
        known = self._clients.get(channel.uid)
        if known is not None and (known.generation, known.digest) == (generation, digest):
            return known
        client = self._clients[channel.uid] = _Client(generation, digest, self._build(channel, secrets.values))
        if known is not None:
            await self._retire(known)
        return client

    async def _retire(self, client: _Client) -> None:
        client.retired = True
        await _close_unused(client)

    def notify_changed(self) -> None:
        """Tells those who wait that a channel or a Secret has changed."""
        self._changes.beat()

    @property
    def changed(self) -> asyncio.Event:
        """Set by the next change of any channel or Secret."""
        return self._changes.next

    async def forget(self, uid: str) -> None:
        """Forgets the client of a channel that is gone."""
        client = self._clients.pop(uid, None)
        if client is not None:
            await self._retire(client)

    async def aclose(self) -> None:
        """Closes every client that nobody uses."""
        for uid in list(self._clients):
            await self.forget(uid)


async def _close_unused(client: _Client) -> None:
    if client.retired and client.users == 0:
        client.retired = False  # once
        await client.channel.aclose()
