"""Writes a person's answer into the call's spec, by whichever road it came; the first one wins.

The API server itself refuses a second answer (the fields are set once) and an answer to a call that has ended, so
replicas, kubectl and the deadline can race. Whoever comes late is told who decided, and when.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.api.v1alpha1.taskruntoolcall import ANSWERED, Decision, HumanResponse
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import ConflictError, InvalidError, NotFoundError, UnavailableError
from kubechain_common.messages import ObjectRef

_NOT_ASKED = {
    "decision": "The call waits for approval: it is approved or rejected.",
    "response": "The call asks a question: it takes an answer, and no decision.",
}


class Outcome(StrEnum):
    ACCEPTED = "Accepted"
    TOO_LATE = "TooLate"
    """The answer came after another one, or after the call's end."""
    GONE = "Gone"
    """The call does not exist any more, or another one has its name."""
    NOT_ASKED = "NotAsked"
    """The call waits for nobody, or not for an answer of this kind."""
    INVALID = "Invalid"
    """The API server does not take this answer, as it stands."""


@dataclass(frozen=True)
class Verdict:
    """What came of an answer; ``sentence`` is for the person who gave it."""

    outcome: Outcome
    sentence: str

    @property
    def accepted(self) -> bool:
        return self.outcome is Outcome.ACCEPTED


class UncertainAnswerError(UnavailableError):
    """The API server went silent while it was given the answer, which may have been taken. Giving it again is safe."""


class Answers:
    """Writes the answers of all roads."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube

    async def decide(self, ref: ObjectRef, decision: Decision) -> Verdict:
        """Approves or rejects the call. Raises KubeError, UncertainAnswerError among them."""
        return await self._give(ref, "decision", decision)

    async def respond(self, ref: ObjectRef, response: HumanResponse) -> Verdict:
        """Answers the call's question. Raises KubeError, UncertainAnswerError among them."""
        return await self._give(ref, "response", response)

    async def _give(self, ref: ObjectRef, field: str, answer: Decision | HumanResponse) -> Verdict:
        try:
            call = await self._kube.get(TaskRunToolCall, ref.namespace, ref.name)
        except NotFoundError:
            return _gone()
        refusal = check(call, ref, field)
        if refusal is not None:
            return refusal
        # The uid keeps the answer from another call of this name, the version from one that changed meanwhile.
        body = {
            "metadata": {"uid": call.uid, "resourceVersion": call.metadata.resource_version},
            "spec": {field: answer.to_wire()},
        }
        try:
            await self._kube.patch(TaskRunToolCall, ref.namespace, ref.name, body)
        except NotFoundError:
            return _gone()
        except ConflictError:
            return await self._give(ref, field, answer)
        except InvalidError as error:
            return Verdict(Outcome.INVALID, str(error))
        except UnavailableError as error:
            raise UncertainAnswerError(str(error), retry_after=error.retry_after) from error
        return Verdict(Outcome.ACCEPTED, describe(answer))


def check(call: TaskRunToolCall, ref: ObjectRef, field: str) -> Verdict | None:
    """Why this answer does not count, or None when it may be given."""
    if call.uid != ref.uid:
        return _gone()
    given = call.spec.decision or call.spec.response
    if given is not None:
        return Verdict(Outcome.TOO_LATE, f"{_told(call, given)} Your answer was not needed any more.")
    if call.finished:
        return Verdict(Outcome.TOO_LATE, f"The call has ended: {call.status.status_detail or call.status.phase}.")
    if call.spec.cancel:
        return Verdict(Outcome.TOO_LATE, "The call was cancelled.")
    waiting_for = {"AwaitingHumanApproval": "decision", "AwaitingHumanInput": "response"}.get(call.status.status or "")
    if waiting_for != field:
        return Verdict(Outcome.NOT_ASKED, _NOT_ASKED.get(waiting_for or "", "The call waits for nobody now."))
    return None


def describe(answer: Decision | HumanResponse) -> str:
    """``Approved by alice``, ``Rejected by alice`` or ``Answered by alice``."""
    verb = "Answered"
    if isinstance(answer, Decision):
        verb = "Approved" if answer.approved else "Rejected"
    return f"{verb} by {answer.by or 'somebody'}"


def _told(call: TaskRunToolCall, answer: Decision | HumanResponse) -> str:
    at = answer.at or next((c.last_transition_time for c in call.status.conditions if c.type == ANSWERED), None)
    return f"{describe(answer)}{f' at {at:%Y-%m-%d %H:%M:%S} UTC' if at else ''}."


def _gone() -> Verdict:
    return Verdict(Outcome.GONE, "This request does not exist any more.")
