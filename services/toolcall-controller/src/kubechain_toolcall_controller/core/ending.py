"""How a call ends: the status of its last write, whatever kind of call it is.

One that was answered though nobody had been asked gets its external id now: human-bridge, whose page shows what was
answered, follows the calls that have one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from kubechain_common.api.names import external_call_id
from kubechain_common.api.v1alpha1.conversation import ImageSource
from kubechain_common.api.v1alpha1.status import shorten
from kubechain_common.api.v1alpha1.taskruntoolcall import TaskRunToolCallStatus, ToolCallPhase
from kubechain_toolcall_controller.core.plan import CallSnapshot

MAX_ERROR = 16384


def build_ended(
    snapshot: CallSnapshot,
    phase: ToolCallPhase,
    detail: str,
    reason: str,
    *,
    result: str = "",
    error: str = "",
    images: Sequence[ImageSource] = (),
    started_at: datetime | None = None,
) -> TaskRunToolCallStatus:
    """The status of a call that ends now: with ``result``, or as Failed with ``error``, which the model reads."""
    call, old = snapshot.call, snapshot.call.status
    answered = call.spec.decision is not None or call.spec.response is not None
    known_as = external_call_id(call.namespace, call.name, call.uid) if answered else ""
    return old.model_copy(
        update={
            "phase": phase,
            "status": "Error" if phase == ToolCallPhase.FAILED else "Succeeded",
            "status_detail": shorten(detail),
            "reason": reason,
            "external_call_id": old.external_call_id or known_as,
            "start_time": old.start_time or started_at or snapshot.now,
            "completion_time": snapshot.now,
            "observed_generation": call.metadata.generation,
            **({"error": shorten(error, MAX_ERROR)} if error else {"result": result, "images": list(images)}),
        }
    )
