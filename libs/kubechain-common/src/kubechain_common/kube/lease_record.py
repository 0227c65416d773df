"""What a Lease says, and who may take it: the pure part of leader election.

Whether a lease has expired is judged by our own clock alone, counted from when we saw the record change last. The
times in the record come from another machine's clock and are written for people only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from kubechain_common.api.v1alpha1.meta import MicroTime

_MICRO_TIME = TypeAdapter(MicroTime)
_UNSTATED_DURATION = 15.0


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A Lease as read; ``holder`` is empty when it was released, ``duration`` is in seconds."""

    holder: str
    duration: float
    transitions: int
    resource_version: str

    @classmethod
    def parse(cls, lease: Mapping[str, Any]) -> LeaseRecord:
        spec = lease.get("spec") or {}
        return cls(
            holder=spec.get("holderIdentity") or "",
            duration=float(spec.get("leaseDurationSeconds") or _UNSTATED_DURATION),
            transitions=int(spec.get("leaseTransitions") or 0),
            resource_version=lease["metadata"]["resourceVersion"],
        )


@dataclass(frozen=True, slots=True)
class Observation:
    """A record (None = no Lease) and when it was first seen in this state: seconds of our own monotonic clock."""

    record: LeaseRecord | None
    at: float

    def update(self, record: LeaseRecord | None, now: float) -> Observation:
        """The observation after another look. A record that is seen again keeps the time when it was first seen."""
        return self if record == self.record else Observation(record, now)

    def expires_in(self, identity: str, now: float) -> float:
        """Seconds until ``identity`` may take the lease; 0 = now: nobody has it, we have it, or its time is up."""
        record = self.record
        if record is None or record.holder in ("", identity):
            return 0.0
        return max(0.0, self.at + record.duration - now)


def build_claim(record: LeaseRecord | None, identity: str, duration: float, now: datetime) -> dict[str, Any]:
    """The spec that makes ``identity`` the holder of a lease that was ``record``."""
    renew = _micro_time(now)
    claim: dict[str, Any] = {
        "holderIdentity": identity,
        "leaseDurationSeconds": max(1, round(duration)),
        "renewTime": renew,
    }
    if record is None:
        return {**claim, "acquireTime": renew, "leaseTransitions": 0}
    if record.holder != identity:
        return {**claim, "acquireTime": renew, "leaseTransitions": record.transitions + 1}
    return claim


def build_release(now: datetime) -> dict[str, Any]:
    """The spec of a lease that its holder has let go."""
    return {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro_time(now)}


def _micro_time(value: datetime) -> str:
    return str(_MICRO_TIME.dump_python(value, mode="json"))
