"""What human-bridge reports of a request to a person. Pure but for the clock that it is given."""

from __future__ import annotations

from datetime import datetime

from kubechain_common.messages import ObjectRef
from kubechain_common.messages.human import REASON_REQUEST_FAILED, HumanRequest, HumanResult
from kubechain_common.messaging.delivery import Delivery, Poison


def build_sent(delivery: Delivery[HumanRequest], reason: str, message: str, at: datetime) -> HumanResult:
    """The report that the request is on its way to the person."""
    return HumanResult(
        call=delivery.message.call,
        outcome="Sent",
        reason=reason,
        message=message,
        sent_at=at,
        attempt=delivery.attempt,
    )


def build_dropped(delivery: Delivery[HumanRequest], why: str) -> HumanResult:
    """The report that nobody was asked."""
    return HumanResult(call=delivery.message.call, outcome="Dropped", message=why, attempt=delivery.attempt)


def build_notice(delivery: Delivery[HumanRequest], reason: str, message: str, retry_in: float) -> HumanResult:
    """The notice that nobody was asked yet."""
    return HumanResult(
        call=delivery.message.call,
        outcome="Retrying",
        reason=reason,
        message=message,
        attempt=delivery.attempt,
        retry_in_seconds=retry_in,
    )


def build_poison_notice(poison: Poison) -> HumanResult | None:
    """The notice of a request that cannot be read. The subject tells whose it is, because the payload may say anything.

    It is no result: the call goes on waiting, and can be answered.
    """
    parts = poison.subject.split(".")
    if len(parts) != 6:
        return None
    call = ObjectRef(namespace=parts[4], name="", uid=parts[5])
    message = f"human-bridge cannot read the request: {poison.reason}"
    return HumanResult(
        call=call, outcome="Retrying", reason=REASON_REQUEST_FAILED, message=message, attempt=poison.attempt
    )
