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
