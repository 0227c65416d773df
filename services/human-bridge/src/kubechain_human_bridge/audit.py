"""Who was refused, where, and why: a Warning event, a line in the log and a count.

An event's words are the same for the same refusal, so that repetitions only raise its count. What an unproven request
claims to be about is looked up before it is believed, at a bounded rate, and its author's words are never repeated.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from prometheus_client import Counter

from kubechain_common.api.v1alpha1 import ContactChannel, TaskRunToolCall
from kubechain_common.api.v1alpha1.meta import CRDInfo, ObjectMeta, Resource
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import KubeError
from kubechain_common.kube.event_recorder import EventRecorder
from kubechain_common.messages import ObjectRef
from kubechain_common.telemetry.logging import get_logger
from kubechain_human_bridge.channels.ask_text import one_line

COMPONENT = "human-bridge"
REASON = "DecisionRefused"

REFUSALS = Counter(
    "kubechain_human_refusals", "Answers that were not taken, by the road they came and why.", ["road", "reason"]
)

_LOOKUPS_PER_SECOND = 5.0
_LOOKUP_BURST = 20.0

_log = get_logger(__name__)


class _NamedCall(Resource):
    """A call, as far as an event has to know it."""

    crd: ClassVar[CRDInfo] = TaskRunToolCall.crd


@dataclass(frozen=True)
class Refusal:
    """``road`` is where it came (link, slack, webhook), ``reason`` one word for the count, ``why`` a sentence.

    ``who`` is empty where nothing proves who it was.
    """

    road: str
    reason: str
    why: str
    who: str = ""

    @property
    def message(self) -> str:
        by = f" by {one_line(self.who, 253)}" if self.who else ""
        return f"Refused an answer{by} through {self.road}: {self.why}"


class Audit:
    """Tells of refusals."""

    def __init__(self, kube: KubeClient, recorder: EventRecorder) -> None:
        self._kube = kube
        self._recorder = recorder.for_component(COMPONENT)
        self._budget = Budget(_LOOKUPS_PER_SECOND, _LOOKUP_BURST)

    def refused_call(self, call: ObjectRef, refusal: Refusal) -> None:
        """Tells of a refused answer to a call that is known to be this one."""
        metadata = ObjectMeta(name=call.name, namespace=call.namespace, uid=call.uid)
        self._tell(_NamedCall(metadata=metadata), refusal)

    def refused_channel(self, channel: ContactChannel, refusal: Refusal) -> None:
        """Tells of a refused request to a channel's endpoint that does not prove which call it is about."""
        self._tell(channel, refusal)

    def refused_unknown(self, refusal: Refusal) -> None:
        """Tells of a refused request for which there is no object to have an event."""
        self._tell(None, refusal)

    async def refused_claim(self, claimed: ObjectRef | None, refusal: Refusal) -> None:
        """Tells of a refused request that proves nothing, and names this call. It has an event if there is such a call,
        with this uid.
        """
        known = claimed is not None and self._budget.take(time.monotonic()) and await self._exists(claimed)
        if known and claimed is not None:
            self.refused_call(claimed, refusal)
        else:
            self.refused_unknown(refusal)

    async def _exists(self, claimed: ObjectRef) -> bool:
        try:
            call = await self._kube.get(TaskRunToolCall, claimed.namespace, claimed.name)
        except KubeError:
            return False
        return call.uid == claimed.uid

    def _tell(self, obj: Resource | None, refusal: Refusal) -> None:
        REFUSALS.labels(refusal.road, refusal.reason).inc()
        _log.warning(
            "answer refused",
            road=refusal.road,
            reason=refusal.reason,
            by=one_line(refusal.who, 253),
            namespace=obj.namespace if obj else None,
            name=obj.name if obj else None,
        )
        if obj is not None:
            self._recorder.event(obj, "Warning", REASON, refusal.message)


class Budget:
    """Allows so many at once, and so many a second after that."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._at = 0.0

    def take(self, moment: float) -> bool:
        """Takes one; whether there was one left at this moment, in seconds of any clock that only goes forward."""
        self._left = min(self._burst, self._left + max(0.0, moment - self._at) * self._per_second)
        self._at = moment
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
