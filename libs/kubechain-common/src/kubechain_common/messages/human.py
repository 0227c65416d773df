"""toolcall-controller -> human-bridge: ask a person about this call; and back: the person was asked.

The answer does not travel on the bus: whoever takes it writes it into the call's spec, as kubectl does.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kubechain_common.api.v1alpha1.meta import MicroTime
from kubechain_common.messages.envelope import Envelope, ObjectRef


class HumanRequest(Envelope):
    """Ask through ``channel`` whether ``call`` may run (Approval), or what it says (Contact).

    What is asked is read from the call itself, when it is asked: nobody is to be asked about a call that has been
    decided, cancelled or deleted meanwhile. ``external_call_id`` and ``run_id`` are the request's name outside, the
    same however often it is sent.
    """

    call: ObjectRef
    channel: ObjectRef
    kind: Literal["Approval", "Contact"]
    external_call_id: Annotated[str, Field(max_length=64)]
    run_id: Annotated[str, Field(max_length=64)]
    requested_at: MicroTime


class HumanResult(Envelope):
    """What came of asking.

    ``Sent``: the request has reached the channel; ``reason`` and ``message`` are those of the call's event.
    ``Dropped``: nobody was asked, because the call does not wait any more. ``Retrying`` is a notice, not a result: an
    attempt failed with ``message`` and the next follows in ``retry_in_seconds``.
    """

    call: ObjectRef
    outcome: Literal["Sent", "Dropped", "Retrying"]
    reason: str = ""
    message: str = ""
    sent_at: MicroTime | None = None
    attempt: int = 1
    retry_in_seconds: float | None = None


class AnswerCheck(Envelope):
    """human-bridge asks itself, in a while, whether the outside API has an answer to this request.

    The question lies in its stream until then, and is given back with a delay each time there is no answer.
    """

    call: ObjectRef
    channel: ObjectRef
    kind: Literal["Approval", "Contact"]
    external_call_id: Annotated[str, Field(max_length=64)]
    asked_at: MicroTime


REASON_HUMANLAYER_SENT = "HumanLayerRequestSent"
REASON_HUMANLAYER_FAILED = "HumanLayerRequestFailed"
REASON_REQUEST_SENT = "HumanRequestSent"
REASON_REQUEST_FAILED = "HumanRequestFailed"
