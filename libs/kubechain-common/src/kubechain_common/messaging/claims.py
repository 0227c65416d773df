"""Claim checks: a payload too big for a message goes into the object store, and the message carries its name.

Every upload has a name of its own, so a second publish of the same unit never touches what the first one points at.
The consumer deletes the object once the acknowledgement is confirmed. What a crash leaves behind goes with the
bucket's age limit.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

import nats.js.errors
from nats.js import api
from nats.js.object_store import ObjectStore

from kubechain_common.messages.topology import CLAIMS_BUCKET, CLAIMS_STREAM
from kubechain_common.messaging import codec, errors
from kubechain_common.telemetry.logging import get_logger

_TIMEOUT = 60.0
_CHUNK = 512 * 1024

_log = get_logger(__name__)


class ClaimStore:
    """The object store of payloads."""

    def __init__(self, js: Any) -> None:
        # Bound without asking the server: the bucket is part of the topology, and a missing one shows on use.
        self._store: Any = ObjectStore(name=CLAIMS_BUCKET, stream=CLAIMS_STREAM, js=js)

    async def put(self, subject: str, payload: bytes, limit: int) -> str:
        """Store the payload in chunks of at most ``limit`` bytes and return its name. Raises the client's errors."""
        name = f"{subject}.{secrets.token_hex(8)}"
        options = api.ObjectMetaOptions(max_chunk_size=min(_CHUNK, limit))
        async with asyncio.timeout(_TIMEOUT):
            await self._store.put(name, payload, meta=api.ObjectMeta(name=name, options=options))
        return name

    async def has(self, name: str) -> bool:
        """Is it still there? Raises the client's errors, but for a missing bucket, which has nothing."""
        try:
            await self._store.get_info(name)
        except nats.js.errors.NotFoundError:
            return False
        return True

    async def get(self, name: str) -> bytes:
        """The payload. Raises PayloadLostError when it is not there, else the client's errors."""
        try:
            # The client would wait for ever if the chunks went away while it reads.
            async with asyncio.timeout(_TIMEOUT):
                result = await self._store.get(name)
        except nats.js.errors.NotFoundError:
            raise errors.PayloadLostError(
                f"The payload of this message was in the object store {CLAIMS_BUCKET} under {name} and is gone: "
                "it outlived the bucket's age limit, or the bucket was deleted."
            ) from None
        return bytes(result.data or b"")

    async def open(self, headers: Mapping[str, str] | None, data: bytes) -> bytes:
        """The payload of a message: what it carries, or what its claim check stands for.

        Raises PoisonMessage when that is gone, else the client's errors.
        """
        claim = codec.claim_of(headers)
        if claim is None:
            return data
        try:
            return await self.get(claim)
        except errors.PayloadLostError as error:
            raise errors.PoisonMessage(str(error)) from None

    async def delete(self, name: str) -> None:
        """Best effort: what stays is bounded by the bucket's age limit."""
        try:
            await self._store.delete(name)
        except errors.ANY as error:
            _log.debug("claim not deleted", claim=name, error=str(error))


class Upload:
    """The payload of one unit, which is uploaded once however often it takes to publish the unit.

    ``in_doubt``: a message that points at it may have been stored, though nobody said so.
    """

    def __init__(self, claims: ClaimStore, subject: str) -> None:
        self._claims = claims
        self._subject = subject
        self.name: str | None = None
        self.in_doubt = False

    async def ensure(self, payload: bytes, limit: int) -> None:
        """Upload it, unless it is there. Raises the client's errors."""
        if self.name is None or not await self._claims.has(self.name):
            self.name = await self._claims.put(self._subject, payload, limit)
            self.in_doubt = False

    async def discard(self) -> None:
        """No message of ours points at it, so nobody would ever delete it."""
        if self.name is not None and not self.in_doubt:
            await self._claims.delete(self.name)
