"""Messages to bytes and back, and the headers beside them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

from pydantic import ValidationError

from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.messages.envelope import Envelope
from kubechain_common.messaging.errors import PoisonMessage
from kubechain_common.telemetry.tracing import names_a_span, parse_traceparent, traceparent_of

HEADER_MSG_ID = "Nats-Msg-Id"
HEADER_EXPECTED_LAST = "Nats-Expected-Last-Subject-Sequence"
HEADER_TRACEPARENT = "traceparent"
HEADER_CLAIM = "Kubechain-Claim"
HEADER_NEW_SINCE = "Kubechain-New-Since"

M = TypeVar("M", bound=Envelope)


def encode(message: Envelope) -> bytes:
    """The message as JSON in camelCase, without absent fields."""
    return message.model_dump_json(by_alias=True, exclude_none=True).encode()


def decode(model: type[M], data: bytes) -> M:
    """The message, or PoisonMessage with a reason that repeats none of its contents."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False, include_context=False)
        shown = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'message'}: {p['msg']}" for p in problems[:5])
        raise PoisonMessage(f"The message is not a {model.__name__} this version understands ({shown}).") from None


def build_headers(
    *,
    msg_id: str | None = None,
    trace: SpanContext | None = None,
    once: bool = False,
    claim: str | None = None,
    new_since: datetime | None = None,
) -> dict[str, str]:
    headers: dict[str, str] = {}
    if msg_id is not None:
        headers[HEADER_MSG_ID] = msg_id
    if once:
        headers[HEADER_EXPECTED_LAST] = "0"
    if trace is not None and names_a_span(trace):
        headers[HEADER_TRACEPARENT] = traceparent_of(trace)
    if claim is not None:
        headers[HEADER_CLAIM] = claim
    if new_since is not None:
        headers[HEADER_NEW_SINCE] = new_since.isoformat()
    return headers


def trace_of(headers: Mapping[str, str] | None) -> SpanContext | None:
    return parse_traceparent((headers or {}).get(HEADER_TRACEPARENT))


def claim_of(headers: Mapping[str, str] | None) -> str | None:
    return (headers or {}).get(HEADER_CLAIM)


def new_since_of(headers: Mapping[str, str] | None) -> datetime | None:
    """When the message's unit came into being, if its sender was sure to be the first who sends it."""
    try:
        since = datetime.fromisoformat((headers or {}).get(HEADER_NEW_SINCE, ""))
    except ValueError:
        return None
    return since if since.tzinfo is not None else None
