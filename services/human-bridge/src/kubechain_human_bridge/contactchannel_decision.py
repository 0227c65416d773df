"""What a ContactChannel's status should say: the pure half of its reconciler."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from kubechain_common.api.v1alpha1 import ContactChannel
from kubechain_common.api.v1alpha1.contactchannel import ContactChannelStatus
from kubechain_human_bridge.channels.errors import ChannelError


@dataclass(frozen=True)
class Verdict:
    """The status to show, and the event that goes with it."""

    status: Literal["Ready", "Error"]
    reason: str
    detail: str

    @property
    def event_type(self) -> Literal["Normal", "Warning"]:
        return "Normal" if self.status == "Ready" else "Warning"


def judge_missing_secret(detail: str) -> Verdict:
    return Verdict("Error", "SecretValidationFailed", detail)


def judge_validation(channel: ContactChannel, outcome: str | ChannelError) -> Verdict | None:
    """The verdict on what the channel said of itself: a sentence that says what is fine, or its error.

    None keeps the status as it is: another side that is away for a moment is no reason to take a validated channel,
    and every MCPServer and Agent on it, out of service. Requests have retries of their own.
    """
    if isinstance(outcome, str):
        return Verdict("Ready", "ValidationSucceeded", outcome)
    status = channel.status
    if outcome.retryable and status.ready and status.observed_generation == channel.metadata.generation:
        return None
    return Verdict("Error", "ValidationFailed", str(outcome))


def build_status(channel: ContactChannel, verdict: Verdict, now: datetime) -> ContactChannelStatus:
    """The channel's status with the verdict in it."""
    generation = channel.metadata.generation
    return channel.status.mark(verdict.status, verdict.reason, verdict.detail, generation=generation, now=now)


def says_the_same(old: ContactChannelStatus, new: ContactChannelStatus) -> bool:
    return (old.status, old.status_detail, old.observed_generation) == (
        new.status,
        new.status_detail,
        new.observed_generation,
    )
