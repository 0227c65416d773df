"""Publishing: each unit of work once, on a subject of its own.

``publish(once=True)`` asks the server to take the message only while its subject has none. As long as the unit waits
or is worked on, publishing it again is refused, which is success. Once it has been acknowledged the subject is free
again; whether the unit is still wanted is then for the publisher to say. Nats-Msg-Id catches a second publish for two
more minutes, also after the first message is gone: right for a first publish, wrong for one that replaces a lost
message, which therefore has none (``msg_id=None``).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from enum import StrEnum
from typing import Self, TypeVar

import nats.js.errors
from prometheus_client import Counter

from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.messages.envelope import Envelope
from kubechain_common.messages.topology import withdrawn_subject
from kubechain_common.messaging import codec, errors
from kubechain_common.messaging.access import BusAccess
from kubechain_common.messaging.claims import ClaimStore, Upload
from kubechain_common.messaging.connection import Connection
from kubechain_common.messaging.delivery import Delivery
from kubechain_common.messaging.live import Live
from kubechain_common.messaging.peers import Peers
from kubechain_common.messaging.shared_entries import SharedEntries
from kubechain_common.messaging.started_calls import StartedCalls
from kubechain_common.telemetry.logging import get_logger

HEADER_MARGIN = 4096
"""Bytes of max_payload that are left for headers."""

T = TypeVar("T")
M = TypeVar("M", bound=Envelope)

_MAX_BACK_OFF = 5.0
_NOT_STORED = (errors.BusFullError, errors.PublishRefusedError)
_PUBLISHED = Counter(
    "kubechain_messages_published_total", "Messages published, by outcome: stored or already_there.", ["outcome"]
)

_log = get_logger(__name__)


class PublishOutcome(StrEnum):
    """What became of a publish; both outcomes are success."""

    STORED = "stored"
    ALREADY_THERE = "already_there"


class Bus:
    """What services do with NATS."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.claims = ClaimStore(connection.js)
        self.started_calls = StartedCalls(connection.js, connection.ready, connection.ensure_topology)
        self.shared = SharedEntries(connection)
        self.live = Live(connection)
        self.peers = Peers(connection)

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, name: str, access: BusAccess | None = None) -> AsyncIterator[Self]:
        """A connected bus with its streams in place. Waits for NATS as long as it takes. Raises CredentialsError."""
        async with Connection.open(url, name, access or BusAccess()) as connection:
            yield cls(connection)

    @property
    def connected(self) -> bool:
        return self.connection.connected

    def on_topology_lost(self, callback: Callable[[frozenset[str]], None]) -> Callable[[], None]:
        """Call back with the names of streams that were lost with everything in them: forget what was published.
        Returns a function that ends it.
        """
        return self.connection.on_topology_lost(callback)

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back after each reconnect, once the streams are there. Returns a function that ends it."""
        return self.connection.on_reconnect(callback)

    async def ensure_topology(self) -> None:
        """Create the streams and buckets that are missing. Raises MessagingError."""
        await self.connection.ensure_topology()

    async def publish(
        self,
        subject: str,
        message: Envelope,
        *,
        msg_id: str | None,
        trace: SpanContext | None = None,
        once: bool = True,
        new_since: datetime | None = None,
    ) -> PublishOutcome:
        """Store the message in its stream; one round trip.

        ``once``: only while the subject holds no message. ``msg_id``: refuse a second publish under this id for two
        minutes, even after the first message is gone; None for a publish that replaces a lost one. ``new_since``: when
        the unit came into being, if nobody can have published it before. Raises MessagingError; after a retryable one
        the message may or may not be stored, and publishing it again is right in both cases.
        """
        upload = Upload(self.claims, subject)
        try:
            return await self._publish_with(
                upload, subject, message, msg_id=msg_id, trace=trace, once=once, new_since=new_since
            )
        except _NOT_STORED:
            await upload.discard()
            raise

    async def publish_until_stored(
        self, subject: str, message: Envelope, *, trace: SpanContext | None
    ) -> PublishOutcome:
        """``publish``, repeated with back-off for as long as NATS is unavailable: for results that must not be
        thrown away.

        Without a message id: a second result, needed after the first got lost, would pass for a duplicate of it.
        Raises MessagingError that is not retryable.
        """
        upload, back_off = Upload(self.claims, subject), 0.1
        while True:
            try:
                return await self._publish_with(upload, subject, message, trace=trace)
            except errors.MessagingError as error:
                if not error.retryable:
                    await upload.discard()
                    raise
                _log.warning("publishing again", subject=subject, error=str(error))
            await asyncio.sleep(back_off * random.uniform(0.5, 1.0))
            back_off = min(_MAX_BACK_OFF, back_off * 2)

    async def has_message(self, stream: str, subject: str) -> bool:
        """True while a message of exactly this subject waits in the stream or is being worked on. Raises
        MessagingError.
        """
        try:
            await self.connection.ready()
            info = await self.connection.js.stream_info(stream, subjects_filter=subject)
        except nats.js.errors.NotFoundError:
            await self.ensure_topology()
            return False
        except errors.ANY as error:
            raise errors.translate(error, f"looking for {subject}") from error
        return bool(info.state.subjects)

    async def read(self, stream: str, sequence: int, model: type[M]) -> Delivery[M] | None:
        """The message in this place, as if it were delivered; None if it is not there any more. It stays whose it is.

        Raises MessagingError, and PoisonMessage.
        """
        try:
            await self.connection.ready()
            raw = await self.connection.js.get_msg(stream, sequence)
        except nats.js.errors.NotFoundError:
            return None
        except errors.ANY as error:
            raise errors.translate(error, f"reading message {sequence}") from error
        data = await self.claims.open(raw.headers, raw.data or b"")
        return Delivery(
            message=codec.decode(model, data),
            attempt=1,
            trace=codec.trace_of(raw.headers),
            subject=raw.subject,
            stored_at=raw.time,
            sequence=sequence,
        )

    async def purge(self, stream: str, subject: str) -> None:
        """Drop all that a consumer which is no more would have taken: ``subject`` is its filter. Raises MessagingError.

        Never for some of a living consumer's subjects (decision 0022); ``withdraw`` is for those.
        """
        try:
            await self.connection.ready()
            await self.connection.js.purge_stream(stream, subject=subject)
        except nats.js.errors.NotFoundError:
            return
        except errors.ANY as error:
            raise errors.translate(error, f"purging {subject}") from error

    async def withdraw(self, stream: str, subject: str) -> None:
        """Take a request back: drop it if it waits, and tell whoever is at it to stop. Raises MessagingError.

        With wildcards: every such request in the stream. Dropped first and told second: a consumer that hears of it, or
        looks after an outage, finds the message gone.
        """
        for exact in await self.find_subjects(stream, subject) if "*" in subject else [subject]:
            await self.drop(stream, exact)
            try:
                await self.connection.nc.publish(withdrawn_subject(exact), b"")
            except errors.ANY as error:
                raise errors.translate(error, f"withdrawing {exact}") from error

    async def drop(self, stream: str, subject: str) -> None:
        """Drop what this very subject holds now, also when it is being worked on, without a word. Raises
        MessagingError.

        One message after the other, by its place in the stream: where a subject is purged, nats-server forgets others
        that are due to be delivered again (decision 0022).
        """
        try:
            await self.connection.ready()
            last = await self.connection.js.get_last_msg(stream, subject)
            while True:
                await self.connection.delete(stream, last.seq)
                following = await self.connection.js.get_last_msg(stream, subject)
                if following.seq > last.seq:
                    return  # it was published since
                if following.seq == last.seq:
                    raise errors.BusUnavailableError(f"NATS did not delete message {last.seq} of {stream}.")
                last = following
        except nats.js.errors.NotFoundError:
            return
        except errors.ANY as error:
            raise errors.translate(error, f"dropping {subject}") from error

    async def find_subjects(self, stream: str, pattern: str) -> list[str]:
        """The subjects of this pattern that hold a message, worked on or not. Raises MessagingError."""
        try:
            await self.connection.ready()
            info = await self.connection.js.stream_info(stream, subjects_filter=pattern)
        except nats.js.errors.NotFoundError:
            return []
        except errors.ANY as error:
            raise errors.translate(error, f"looking for {pattern}") from error
        return list(info.state.subjects or ())

    async def delete_consumer(self, stream: str, durable: str) -> None:
        """Delete a durable consumer; no error when it is not there. Stop the Consumers that use it first, or they
        bring it back.
        """
        try:
            await self.connection.ready()
            await self.connection.js.delete_consumer(stream, durable)
        except nats.js.errors.NotFoundError:
            return
        except errors.ANY as error:
            raise errors.translate(error, f"deleting the consumer {durable}") from error

    async def _publish_with(
        self,
        upload: Upload,
        subject: str,
        message: Envelope,
        *,
        msg_id: str | None = None,
        trace: SpanContext | None,
        once: bool = True,
        new_since: datetime | None = None,
    ) -> PublishOutcome:
        """``publish``, with the payload where an earlier attempt has put it."""
        payload = codec.encode(message)
        limit = int(self.connection.nc.max_payload) - HEADER_MARGIN
        if len(payload) > limit:
            await self._with_streams(lambda: upload.ensure(payload, limit), f"storing the payload of {subject}")
        headers = codec.build_headers(msg_id=msg_id, trace=trace, once=once, claim=upload.name, new_since=new_since)
        try:
            outcome = await self._publish(subject, b"" if upload.name else payload, headers)
        except _NOT_STORED:
            raise
        except BaseException:
            upload.in_doubt = True
            raise
        if outcome is PublishOutcome.ALREADY_THERE:
            await upload.discard()
        _PUBLISHED.labels(outcome).inc()
        return outcome

    async def _publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> PublishOutcome:
        async def publish() -> PublishOutcome:
            try:
                ack = await self.connection.js.publish(subject, payload, headers=headers or None)
            except nats.js.errors.BadRequestError as error:
                if errors.err_code(error) == errors.WRONG_LAST_SEQUENCE:
                    return PublishOutcome.ALREADY_THERE
                raise
            return PublishOutcome.ALREADY_THERE if ack.duplicate else PublishOutcome.STORED

        return await self._with_streams(publish, f"publishing {subject}")

    async def _with_streams(self, operation: Callable[[], Awaitable[T]], doing: str) -> T:
        """Run the operation; where its stream turns out to be missing, create the streams and run it once more."""
        try:
            await self.connection.ready()
            try:
                return await operation()
            except errors.MISSING:
                await self.ensure_topology()
                return await operation()
        except errors.MISSING as error:
            raise errors.BusUnavailableError(f"The stream is missing for {doing}, though just created.") from error
        except errors.ANY as error:
            raise errors.translate(error, doing) from error
