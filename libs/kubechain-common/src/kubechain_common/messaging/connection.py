"""The connection to NATS, and whether what we know about the streams behind it can be trusted.

The client reconnects by itself, for ever. What it cannot know is whether the server that came back still has its
storage. So from the moment a connection is lost (or the server says that a stream of ours was deleted) until the
streams have been looked at again, the connection is not *ready*: nothing is published or acknowledged. That matters
for acknowledgements in particular: they name a message by its sequence, and in a stream made anew the same sequence is
somebody else's message.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import nats.js.errors

from kubechain_common.messages.permissions import streams_of
from kubechain_common.messaging import errors
from kubechain_common.messaging.access import BusAccess
from kubechain_common.messaging.client import Client
from kubechain_common.messaging.streams import Streams
from kubechain_common.telemetry.logging import get_logger

REQUEST_TIMEOUT = 5.0
_RECONNECT_WAIT = 0.25
_PING_INTERVAL = 20
_MAX_BACK_OFF = 2.0
_REPEAT_LOG_AFTER = 30.0
_ADVISORIES = ("$JS.EVENT.ADVISORY.STREAM.CREATED.*", "$JS.EVENT.ADVISORY.STREAM.DELETED.*")

Callback = Callable[[], None]
LossCallback = Callable[[frozenset[str]], None]
"""Told the names of the streams and buckets that were lost."""
C = TypeVar("C", bound=Callable[..., None])

_log = get_logger(__name__)


class Connection:
    """One per process. ``nc`` and ``js`` are the client's own objects."""

    def __init__(self, access: BusAccess) -> None:
        self._access = access
        self.nc: Any = Client()
        self.js: Any = None
        self.connected_at = datetime.now(UTC)
        self._streams = Streams(streams_of(self._access.user), self._access.replicas)
        self._trusted = asyncio.Event()
        self._check = asyncio.Event()
        self._reconnected = False
        self._losses = 0
        self._ensuring = asyncio.Lock()
        self._on_lost: list[LossCallback] = []
        self._on_reconnect: list[Callback] = []
        self._last_error = ("", 0.0)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, name: str, access: BusAccess) -> AsyncIterator[Self]:
        """Connect, however long NATS takes to come up or to take our credentials, and create the streams. Closes,
        flushing, at the end. Raises CredentialsError.
        """
        self = cls(access)
        failure: Exception | None = None
        try:
            await self._connect(url, name)
            await self._ensure_until_done()
            self._trusted.set()
            async with asyncio.TaskGroup() as group:
                keeper = group.create_task(self._keep_trust())
                try:
                    yield self
                except Exception as error:
                    failure = error  # leaves the group as what it is, not wrapped into an exception group
                finally:
                    keeper.cancel()
        finally:
            await self._close()
        if failure is not None:
            raise failure

    @property
    def connected(self) -> bool:
        return bool(self.nc.is_connected)

    async def ready(self, timeout: float | None = REQUEST_TIMEOUT) -> None:
        """Return once connected with streams that are known to be the ones we know.

        Raises BusUnavailableError when that takes longer than ``timeout`` seconds, BusClosedError when it never will
        be.
        """
        if self._is_ready():
            return
        try:
            async with asyncio.timeout(timeout):
                while not self._is_ready():
                    if self.nc.is_closed:
                        raise errors.BusClosedError("The connection to NATS is closed.")
                    self._trusted.clear()
                    await self._trusted.wait()
        except TimeoutError:
            raise errors.BusUnavailableError("NATS cannot be reached; trying again.") from None

    def on_topology_lost(self, callback: LossCallback) -> Callback:
        """Call back whenever streams were lost with what was in them; returns a function that ends it."""
        return _register(self._on_lost, callback)

    def on_reconnect(self, callback: Callback) -> Callback:
        """Call back after each reconnect, once the streams are there; returns a function that ends it."""
        return _register(self._on_reconnect, callback)

    @asynccontextmanager
    async def listening(self, subject: str, callback: Callable[[Any], Awaitable[None]]) -> AsyncIterator[None]:
        """Call back with each message of core NATS while the context is entered, also after a reconnect. Raises
        MessagingError.
        """
        try:
            subscription = await self.nc.subscribe(subject, cb=callback)
        except errors.ANY as error:
            raise errors.translate(error, f"listening to {subject}") from error
        try:
            yield
        finally:
            with suppress(*errors.ANY):
                await subscription.unsubscribe()

    async def ensure_topology(self, timeout: float = REQUEST_TIMEOUT) -> None:
        """Create what is missing and tell the subscribers of ``on_topology_lost`` when something was. Raises
        MessagingError.
        """
        async with self._ensuring:
            try:
                lost = await self._streams.ensure(self.nc.jetstream(timeout=timeout))
            except errors.ANY as error:
                raise errors.translate(error, "looking for the streams") from error
            if lost:
                _notify(self._on_lost, lost)

    async def has_dropped(self, stream: str, sequence: int) -> bool:
        """True when the message is gone from the very stream that we know; False when the stream itself was lost.

        Raises MessagingError. Whoever asks has heard of every loss of the stream before the answer.
        """
        async with self._ensuring:
            try:
                return await self._streams.has_dropped(self.js, stream, sequence)
            except errors.ANY as error:
                raise errors.translate(error, f"looking for message {sequence}") from error

    async def delete(self, stream: str, sequence: int) -> None:
        """Delete the message, whose place was looked up a moment ago; no error when it is gone. Raises the client's
        errors, and BusUnavailableError.

        Not by the client's ``delete_msg``, which has the message overwritten, and its whole block written anew.
        """
        if not self._is_ready():  # the place may be another message's by now
            raise errors.BusUnavailableError("NATS was away meanwhile; trying again.")
        body = json.dumps({"seq": sequence, "no_erase": True}).encode()
        answer = await self.nc.request(f"$JS.API.STREAM.MSG.DELETE.{stream}", body, timeout=REQUEST_TIMEOUT)
        error = json.loads(answer.data).get("error")
        if error is not None and error.get("err_code") not in errors.NOT_DELETED:
            raise nats.js.errors.APIError.from_error(error)

    def _is_ready(self) -> bool:
        return bool(self._trusted.is_set() and self.nc.is_connected)

    async def _connect(self, url: str, name: str) -> None:
        parts = urlsplit(url)
        _log.info("connecting to NATS", host=parts.hostname, port=parts.port)
        await self.nc.connect(
            url,
            name=name,
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RECONNECT_WAIT,
            ping_interval=_PING_INTERVAL,
            connect_timeout=REQUEST_TIMEOUT,
            drain_timeout=REQUEST_TIMEOUT,
            skip_subject_validation=True,
            **self._access.build_options(),
            error_cb=self._handle_error,
            disconnected_cb=self._handle_disconnect,
            reconnected_cb=self._handle_reconnect,
            closed_cb=self._handle_close,
        )
        self.connected_at = datetime.now(UTC)
        self.js = self.nc.jetstream(timeout=REQUEST_TIMEOUT)
        for subject in _ADVISORIES:
            await self.nc.subscribe(subject, cb=self._handle_advisory)

    async def _close(self) -> None:
        if self.nc.is_closed:
            return
        try:
            if self.nc.is_connected:
                await self.nc.drain()
            else:
                await self.nc.close()
        except errors.ANY as error:
            _log.debug("NATS connection not closed in order", error=str(error))

    async def _keep_trust(self) -> None:
        """Look at the streams again whenever something happened that may have changed them."""
        while True:
            await self._check.wait()
            self._check.clear()
            if self.nc.is_closed:
                raise errors.BusClosedError("The connection to NATS was closed for good; the log says why.")
            if not self.nc.is_connected:
                continue
            losses = self._losses
            await self._ensure_until_done()
            if losses != self._losses or self._check.is_set():
                continue  # what was seen is out of date already; the next event brings us back here
            self._trusted.set()
            if self._reconnected:
                self._reconnected = False
                _notify(self._on_reconnect)

    async def _ensure_until_done(self) -> None:
        """JetStream takes a moment after the server accepts connections, and may be full or misconfigured for
        longer.
        """
        back_off, timeout = 0.05, 0.25
        while not self.nc.is_closed:
            try:
                # A server that is just starting may swallow a request, so the first ones are not waited for long.
                await self.ensure_topology(timeout)
                return
            except errors.MessagingError as error:
                if not error.retryable:
                    raise
                self._log_error(error)
                await asyncio.sleep(back_off)
                back_off, timeout = min(_MAX_BACK_OFF, back_off * 2), min(REQUEST_TIMEOUT, timeout * 2)

    async def _handle_error(self, error: Exception) -> None:
        self._log_error(error)
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # The client tries to connect for ever, and drops a cancellation that arrives together with a failure.
            raise asyncio.CancelledError

    def _log_error(self, error: Exception) -> None:
        # The client reports each attempt; say it once, and again when it lasts.
        text, at = self._last_error
        new, now = f"{type(error).__name__}: {error}", time.monotonic()
        if new != text or now - at > _REPEAT_LOG_AFTER:
            self._last_error = (new, now)
            if "Authorization Violation" in new:
                _log.error(
                    "NATS does not take our user and password: look at what the password file and the server have",
                    user=self._access.user,
                    password_file=str(self._access.password_file or ""),
                )
            else:
                _log.warning("NATS", error=new)

    async def _handle_disconnect(self) -> None:
        self._losses += 1
        self._trusted.clear()
        if not self.nc.is_closed:
            _log.warning("disconnected from NATS; reconnecting")

    async def _handle_reconnect(self) -> None:
        _log.info("reconnected to NATS")
        self.connected_at = datetime.now(UTC)
        self._reconnected = True
        self._check.set()

    async def _handle_close(self) -> None:
        self._check.set()

    async def _handle_advisory(self, message: Any) -> None:
        """A stream came or went while we were connected; nobody else would tell a process that only publishes."""
        if message.subject.rsplit(".", 1)[-1] not in self._streams.names:
            return
        if ".DELETED." in message.subject:
            self._trusted.clear()
        self._check.set()


def _register(callbacks: list[C], callback: C) -> Callback:
    callbacks.append(callback)

    def unregister() -> None:
        if callback in callbacks:
            callbacks.remove(callback)

    return unregister


def _notify(callbacks: list[C], *what: frozenset[str]) -> None:
    for callback in list(callbacks):
        try:
            callback(*what)
        except Exception:
            _log.exception("a bus callback failed", callback=getattr(callback, "__qualname__", repr(callback)))
