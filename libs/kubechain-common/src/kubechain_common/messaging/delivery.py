"""What a handler gets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.messages.envelope import Envelope

M = TypeVar("M", bound=Envelope)


@dataclass(frozen=True, slots=True)
class Delivery(Generic[M]):
    """One delivery of a message.

    ``attempt`` counts from 1; ``stored_at`` is when the stream took the message; ``sequence`` is its place in the
    stream, different for every publish even of the same unit of work. ``new_since`` is when the unit came into
    being, and None whenever it may have been dealt with already: delivered or sent before, or stored before this
    process was connected to the server, which forgets in a crash what it delivered.
    """

    message: M
    attempt: int
    trace: SpanContext | None
    subject: str
    stored_at: datetime
    sequence: int
    new_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Poison:
    """A message that can never be handled, for the service to tell whoever waits for a result. ``data`` is as it
    came.
    """

    subject: str
    data: bytes
    reason: str
    attempt: int
    trace: SpanContext | None
