"""What replicas know together: small entries of a key-value bucket, written by compare-and-set.

A write names the revision that it was made from and is refused when somebody was faster: read again, decide again.
That an entry was written is told to all replicas by core NATS, which may be lost; whoever listens looks at the entries
again after a reconnect. The bucket is lost with the broker, and everybody starts anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import nats.js.errors

from kubechain_common.messages.topology import SHARED_BUCKET, SHARED_STREAM, shared_subject
from kubechain_common.messaging import errors
from kubechain_common.messaging.codec import HEADER_EXPECTED_LAST
from kubechain_common.messaging.connection import Connection

T = TypeVar("T")

_PREFIX = f"$KV.{SHARED_BUCKET}."
_ATTEMPTS = 3


@dataclass(frozen=True)
class SharedEntry:
    """An entry as it was read; ``revision`` 0 says that there is none."""

    data: bytes
    revision: int


ABSENT = SharedEntry(b"", 0)


class SharedEntries:
    """The bucket. All methods raise BusUnavailableError while nobody can tell."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def read(self, key: str) -> SharedEntry:
        """The entry, ``ABSENT`` if there is none."""

        async def read() -> SharedEntry:
            try:
                found = await self._connection.js.get_last_msg(SHARED_STREAM, _PREFIX + key)
            except nats.js.errors.NotFoundError as error:
                if errors.err_code(error) == errors.MESSAGE_NOT_FOUND:
                    return ABSENT
                raise
            return SharedEntry(bytes(found.data or b""), int(found.seq))

        return await self._with_bucket(read, f"reading {key}")

    async def write(self, key: str, data: bytes, revision: int) -> int | None:
        """The new revision; None when the entry's revision is not ``revision`` any more, or is just being changed."""

        async def write() -> int | None:
            headers = {HEADER_EXPECTED_LAST: str(revision)}
            try:
                ack = await self._connection.js.publish(_PREFIX + key, data, headers=headers)
            except nats.js.errors.BadRequestError as error:
                if errors.err_code(error) in (errors.WRONG_LAST_SEQUENCE, errors.IN_PROCESS_SUBJECT):
                    return None
                raise
            return int(ack.seq)

        return await self._with_bucket(write, f"writing {key}")

    async def find_keys(self, pattern: str) -> list[str]:
        """The keys of this pattern."""

        async def find() -> list[str]:
            info = await self._connection.js.stream_info(SHARED_STREAM, subjects_filter=_PREFIX + pattern)
            return [subject.removeprefix(_PREFIX) for subject in info.state.subjects or ()]

        return await self._with_bucket(find, f"looking for {pattern}")

    async def tell(self, key: str) -> None:
        """Tell all replicas that the entry was written."""
        try:
            await self._connection.nc.publish(shared_subject(key), b"")
        except errors.ANY as error:
            raise errors.translate(error, f"telling of {key}") from error

    async def listen(self, pattern: str, callback: Callable[[str], None]) -> Callable[[], Awaitable[None]]:
        """Call back with the key of each entry of this pattern that is told of; returns a function that ends it."""

        async def hear(message: Any) -> None:
            callback(message.subject.removeprefix(shared_subject("")))

        try:
            subscription = await self._connection.nc.subscribe(shared_subject(pattern), cb=hear)
        except errors.ANY as error:
            raise errors.translate(error, f"listening for {pattern}") from error

        async def end() -> None:
            try:
                await subscription.unsubscribe()
            except errors.ANY:
                return  # it has gone with its connection

        return end

    async def _with_bucket(self, operation: Callable[[], Awaitable[T]], doing: str) -> T:
        """Run the operation; a bucket that is missing is made anew."""
        for _ in range(_ATTEMPTS):
            try:
                await self._connection.ready()
                return await operation()
            except errors.MISSING:
                await self._connection.ensure_topology()
            except errors.ANY as error:
                raise errors.translate(error, doing) from error
        raise errors.BusUnavailableError(f"The bucket {SHARED_BUCKET} keeps disappearing while {doing}.")
