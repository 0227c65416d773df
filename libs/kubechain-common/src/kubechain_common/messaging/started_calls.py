"""Which tool calls have begun: one key per call, created before the tool runs.

A call whose key exists has started, here or elsewhere, and is not started again. The bucket may be lost with the
broker, so its word counts only for calls younger than itself: claim first, then compare with ``created_at``. In this
order a bucket that is made anew in between errs on the safe side.

A call that can not run is claimed too by the host that says so, which learns by it whether the call had begun before. A
call that is cancelled gets its key as well, from whoever cancels it, with a value that says so: the call has either
begun before, or never will, and both sides know which.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import nats.js.errors

from kubechain_common.messages.topology import STARTED_CALLS_BUCKET, STARTED_CALLS_STREAM
from kubechain_common.messaging import errors
from kubechain_common.messaging.codec import build_headers

_ATTEMPTS = 3
_IN_PROCESS_PAUSE = 0.2
_CANCELLED = b"cancelled"


class Claim(StrEnum):
    """What came of the wish to begin a call."""

    GRANTED = "Granted"
    TAKEN = "Taken"
    """The call began before, here or elsewhere."""
    CANCELLED = "Cancelled"
    """The call was taken back before it began."""


class StartedCalls:
    """The bucket. A key is created by a publish that the server refuses when the subject has a message already."""

    def __init__(self, js: Any, ready: Callable[[], Awaitable[None]], ensure: Callable[[], Awaitable[None]]) -> None:
        self._js = js
        self._ready = ready
        self._ensure = ensure

    async def claim(self, key: str, *, holder: str | None = None) -> Claim:
        """Begins the call if nobody has: granted once, to the first that asks, unless the call was cancelled. Raises
        BusUnavailableError when nobody can tell.

        A claim whose answer got lost is known by its token, so that a retry does not mistake itself for somebody else.
        A ``holder`` is granted its own claim again, also after a crash: for what may be begun any number of times.
        """
        token = (holder or secrets.token_hex(8)).encode()
        found = await self._create(key, token)
        if found == token:
            return Claim.GRANTED
        return Claim.CANCELLED if found == _CANCELLED else Claim.TAKEN

    async def forbid(self, key: str) -> bool:
        """Keeps the call from beginning. False when it was claimed before. Raises BusUnavailableError."""
        return await self._create(key, _CANCELLED) == _CANCELLED

    async def cancel(self, key: str, requested_at: datetime) -> bool:
        """``forbid``, and True when the call has not begun, and never will; however often it is asked.

        False when it has begun, or may have: the record is younger than the call. Raises BusUnavailableError.
        """
        return await self.forbid(key) and await self.created_at() < requested_at

    async def _create(self, key: str, token: bytes) -> bytes | None:
        """What the key holds now: this token, or that of whoever came first."""
        doing = f"claiming tool call {key}"
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._ready()
                await self._js.publish(_subject(key), token, headers=build_headers(once=True))
            except nats.js.errors.NoStreamResponseError:
                await self._ensure()
            except errors.ANY as error:
                if errors.err_code(error) == errors.WRONG_LAST_SEQUENCE:
                    return await self._value(key)
                in_process = errors.err_code(error) in errors.IN_PROCESS
                if not (in_process or isinstance(error, errors.UNAVAILABLE)) or attempt == _ATTEMPTS:
                    raise errors.translate(error, doing) from error
                if in_process:  # most likely this very token, whose answer got lost; not to be read yet
                    await asyncio.sleep(_IN_PROCESS_PAUSE * attempt)
            else:
                return token
        raise errors.BusUnavailableError(f"The bucket {STARTED_CALLS_BUCKET} keeps disappearing while {doing}.")

    async def created_at(self) -> datetime:
        """When the bucket came into being; asked of the server each time. Raises BusUnavailableError."""
        for _ in range(_ATTEMPTS):
            try:
                await self._ready()
                info = await self._js.stream_info(STARTED_CALLS_STREAM)
            except nats.js.errors.NotFoundError:
                await self._ensure()
            except errors.ANY as error:
                raise errors.translate(error, "reading the age of the started calls") from error
            else:
                created: datetime = info.created
                return created.astimezone(UTC)
        raise errors.BusUnavailableError(f"The bucket {STARTED_CALLS_BUCKET} keeps disappearing.")

    async def _value(self, key: str) -> bytes | None:
        try:
            entry = await self._js.get_last_msg(STARTED_CALLS_STREAM, _subject(key))
        except nats.js.errors.NotFoundError:
            return None
        except errors.ANY as error:
            raise errors.translate(error, f"reading the claim of tool call {key}") from error
        return bytes(entry.data or b"")


def _subject(key: str) -> str:
    return f"$KV.{STARTED_CALLS_BUCKET}.{key}"
