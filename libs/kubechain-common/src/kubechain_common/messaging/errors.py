"""What goes wrong on the bus, and what a handler says about its message.

MessagingError                 carries ``retryable``
+-- BusUnavailableError        no connection, no answer in time, JetStream not ready          retryable
|   +-- BusFullError           the stream, or the server's storage, has no room                retryable
+-- BusClosedError             the server refused us for good (credentials), or we closed      not retryable
+-- CredentialsError           what we should sign in with cannot be read                      not retryable
+-- PublishRefusedError        the server will never take this message                         not retryable
+-- TopologyError              a stream of ours exists with a configuration we cannot change   not retryable
+-- PayloadLostError           the object behind a claim check is gone                         not retryable

HandlerSignal                  raised by handlers, never by the bus
+-- RetryLater(delay)          deliver the message again after ``delay`` seconds
+-- PoisonMessage(reason)      never deliver it again
"""

from __future__ import annotations

from typing import Any

import nats.errors
import nats.js.errors

MESSAGE_NOT_FOUND = 10037
NO_PEERS = 10005
"""Too few servers of the cluster are there, or have room, for another stream or replica."""
WRONG_LAST_SEQUENCE = 10071
IN_PROCESS_SUBJECT = 10164
IN_PROCESS = frozenset({10158, IN_PROCESS_SUBJECT, 10167})
"""A message of this id, or of this subject, is on its way into the stream, or too many are: whether it will get there,
and be refused or not, shows once the servers that keep the stream agree. Only those with replicas say so."""
NOT_DELETED = frozenset({10043, 10057})
"""There is no such message (any more) to be deleted; the second one also says that it could not be."""
STREAM_CONFIG_DIFFERS = 10058
FULL = frozenset({10002, 10023, 10028, 10047, 10077})
"""Account or server without storage or memory, and a stream at its limit of bytes or messages."""


class MessagingError(Exception):
    """Base of the errors of the bus. ``retryable``: the same call may succeed later."""

    retryable = False


class BusUnavailableError(MessagingError):
    """NATS cannot be reached or does not answer; what was asked may or may not have happened."""

    retryable = True


class BusFullError(BusUnavailableError):
    """There is no room: what was asked did not happen. It can once messages have been taken, or limits been raised."""


class BusClosedError(MessagingError):
    """The connection is closed for good."""


class CredentialsError(MessagingError):
    """There is something wrong with the files that we should sign in with."""


class PublishRefusedError(MessagingError):
    """The server refused the message itself."""


class TopologyError(MessagingError):
    """A stream or bucket cannot be brought into the shape that we need."""


class PayloadLostError(MessagingError):
    """A message points at an object that is no longer in the object store."""


class HandlerSignal(Exception):
    """What a handler raises to decide about its message."""


class RetryLater(HandlerSignal):
    """Deliver again after ``delay`` seconds, here or elsewhere."""

    def __init__(self, delay: float, reason: str = "") -> None:
        super().__init__(reason or f"retry in {delay:g} s")
        self.delay = delay


class PoisonMessage(HandlerSignal):
    """The message can never be handled; ``reason`` is a sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


# Tuples, so that callers need no import of nats. Its TimeoutError is asyncio's as well.
UNAVAILABLE: tuple[type[Exception], ...] = (
    nats.errors.TimeoutError,
    nats.errors.NoRespondersError,
    nats.errors.StaleConnectionError,
    nats.errors.OutboundBufferLimitError,
    nats.errors.NoServersError,
    nats.errors.ConnectionReconnectingError,
    nats.js.errors.ServiceUnavailableError,
    nats.js.errors.ServerError,
    OSError,
    TimeoutError,
)
CLOSED: tuple[type[Exception], ...] = (nats.errors.ConnectionClosedError, nats.errors.ConnectionDrainingError)
MISSING: tuple[type[Exception], ...] = (nats.js.errors.NoStreamResponseError, nats.js.errors.NotFoundError)
ANY: tuple[type[Exception], ...] = (nats.errors.Error, OSError, TimeoutError)
FAILURES: tuple[type[Exception], ...] = (MessagingError, *ANY)


def err_code(error: BaseException) -> int | None:
    """JetStream's own error code, where the error carries one."""
    code: Any = getattr(error, "err_code", None)
    return code if isinstance(code, int) else None


def translate(error: Exception, doing: str) -> MessagingError:
    """The error of our tree for one of the client's, with a sentence that says what we were doing."""
    if isinstance(error, MessagingError):
        return error
    if err_code(error) in FULL:
        return BusFullError(f"NATS has no room for {doing}: {getattr(error, 'description', error)}.")
    if err_code(error) == NO_PEERS:
        return BusUnavailableError(f"NATS has too few servers for {doing}: {getattr(error, 'description', error)}.")
    if err_code(error) in IN_PROCESS:
        return BusUnavailableError(f"NATS is still at an earlier message, and can not tell yet while {doing}.")
    if isinstance(error, CLOSED):
        return BusClosedError(f"The connection to NATS is closed: {doing} was not done.")
    if isinstance(error, UNAVAILABLE):
        return BusUnavailableError(f"NATS did not answer in time while {doing} ({type(error).__name__}).")
    return PublishRefusedError(f"NATS refused {doing}: {error}")
