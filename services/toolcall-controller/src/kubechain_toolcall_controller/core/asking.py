"""How a call waits for a person: the waiting status first, then the request, and what is heard of it.

    (new) -> AwaitingHuman...  the request is published, and again while nobody knows that it arrived
          -> HumanAsked=True   human-bridge has reported that it did; from now on nobody is asked

Trouble, a missing channel as well as an attempt that failed, stands behind the sentence that says what is waited for.
It never ends the call: the answer is a field of its spec, and can be given by other roads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from kubechain_common.api.names import LABEL_TASK_UID, external_call_id, external_run_id
from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.api.v1alpha1.status import Condition, set_condition, shorten
from kubechain_common.api.v1alpha1.taskruntoolcall import HUMAN_ASKED, TaskRunToolCallStatus, ToolCallPhase
from kubechain_common.messages import ObjectRef
from kubechain_common.messages.human import REASON_REQUEST_FAILED, REASON_REQUEST_SENT, HumanRequest, HumanResult
from kubechain_toolcall_controller.core.plan import CallPlan, CallSnapshot, PlannedEvent

ASK_AGAIN_AFTER = 1.0
"""Seconds after which a request is made again that was dropped, though the call waits."""


@dataclass(frozen=True)
class Question:
    """What is waited for; ``channel`` is the name of the ContactChannel, empty when none is named any more."""

    kind: Literal["Approval", "Contact"]
    channel: str

    @property
    def status(self) -> Literal["AwaitingHumanApproval", "AwaitingHumanInput"]:
        return "AwaitingHumanApproval" if self.kind == "Approval" else "AwaitingHumanInput"

    @property
    def opening(self) -> str:
        return f"Waiting for human {'approval' if self.kind == 'Approval' else 'input'}"

    @property
    def sentence(self) -> str:
        return f"{self.opening} via contact channel {self.channel}" if self.channel else self.opening

    @property
    def event(self) -> PlannedEvent:
        if self.kind == "Approval":
            message = f"Tool execution requires approval via contact channel {self.channel}"
            return PlannedEvent("Normal", "AwaitingHumanApproval", message)
        return PlannedEvent(
            "Normal", "AwaitingHumanContact", f"Human input requested via contact channel {self.channel}"
        )


def is_waiting(call: TaskRunToolCall) -> bool:
    """True while the status says that a person's answer is waited for, also when it is there already."""
    return call.status.status in ("AwaitingHumanApproval", "AwaitingHumanInput")


def was_asked(status: TaskRunToolCallStatus) -> bool:
    return any(c.type == HUMAN_ASKED and c.status == "True" for c in status.conditions)


def may_be_unasked(call: TaskRunToolCall) -> bool:
    """True while the call's request may still lie in its stream."""
    return is_waiting(call) and not was_asked(call.status)


def decide_asking(snapshot: CallSnapshot, question: Question) -> CallPlan:
    """The next step of a call that nobody has answered yet."""
    if snapshot.call.status.status != question.status:
        return CallPlan(ask_task=True) if snapshot.asks_task_first else _begin(snapshot, question)
    if was_asked(snapshot.call.status):
        return _go_on_waiting(snapshot, question)
    report = snapshot.asked
    if report is not None and report.outcome == "Sent":
        return _mark_asked(snapshot, question, report)
    plan = _go_on_waiting(snapshot, question)
    if report is not None and report.outcome == "Dropped":
        return replace(plan, requeue_after=min(plan.requeue_after or ASK_AGAIN_AFTER, ASK_AGAIN_AFTER))
    return replace(plan, question=_build_request(snapshot, question, snapshot.call.status.start_time))


def close_question(snapshot: CallSnapshot, plan: CallPlan) -> CallPlan:
    """The plan, completed: it takes back a request to a person that is not needed any more, and settles the report of
    asking.
    """
    call = snapshot.call
    if plan.stop or plan.ask_task or plan.ask_server:
        return plan
    ends = plan.status is not None and plan.status.status != call.status.status
    # A report for a call that does not wait yet, as far as is known here, is kept until the news has come.
    noted = snapshot.asked is not None and call.status.status is not None
    return replace(plan, withdraw_question=ends and may_be_unasked(call), noted=noted)


def seconds_left(snapshot: CallSnapshot) -> float | None:
    """Seconds until the channel's deadline for this waiting call; None when there is none."""
    start, channel = snapshot.call.status.start_time, snapshot.channel
    if channel is None or channel.spec.timeout_seconds is None or start is None:
        return None
    return channel.spec.timeout_seconds - (snapshot.now - start) / timedelta(seconds=1)


def describe_timeout(snapshot: CallSnapshot) -> str:
    seconds = snapshot.channel.spec.timeout_seconds if snapshot.channel else None
    return f"Nobody answered within {seconds} second{'' if seconds == 1 else 's'}"


def find_task_uid(call: TaskRunToolCall) -> str:
    """The uid of the call's Task; of a call that somebody made by hand it may be unknown."""
    owner = next((owner.uid for owner in call.metadata.owner_references if owner.kind == "Task"), "")
    return owner or call.metadata.labels.get(LABEL_TASK_UID, "")


def _begin(snapshot: CallSnapshot, question: Question) -> CallPlan:
    call, channel = snapshot.call, snapshot.channel
    trouble = _find_trouble(snapshot, question)
    status = call.status.model_copy(
        update={
            "phase": ToolCallPhase.PENDING,
            "status": question.status,
            "status_detail": _join(question, trouble),
            "external_call_id": external_call_id(call.namespace, call.name, call.uid),
            "start_time": snapshot.now,
        }
    )
    timeout = channel.spec.timeout_seconds if channel is not None else None
    return CallPlan(
        status,
        question=_build_request(snapshot, question, snapshot.now),
        events=(question.event, *((trouble,) if trouble else ())),
        requeue_after=None if timeout is None else float(timeout),
    )


def _go_on_waiting(snapshot: CallSnapshot, question: Question) -> CallPlan:
    status = snapshot.call.status
    if was_asked(status):
        trouble = _find_loss(snapshot, question)
        kept = _keep(status.status_detail, question.opening)
        gone = kept == _join(question, _build_lost(question))
        detail = question.sentence if gone or kept is None else kept
        detail = _join(question, trouble) if trouble is not None else detail
    else:
        trouble = _find_trouble(snapshot, question) or _find_failure(snapshot.asked)
        kept = _keep(status.status_detail, question.sentence)
        gone = kept == _join(question, _build_not_found(question))
        detail = question.sentence if gone or kept is None else kept
        detail = _join(question, trouble) if trouble is not None else detail
    news = detail != status.status_detail
    return CallPlan(
        status.model_copy(update={"status_detail": detail}) if news else None,
        events=(trouble,) if trouble is not None and news else (),
        requeue_after=seconds_left(snapshot),
    )


def _mark_asked(snapshot: CallSnapshot, question: Question, report: HumanResult) -> CallPlan:
    status = snapshot.call.status
    reason, message = report.reason or REASON_REQUEST_SENT, report.message or "Human request sent"
    condition = Condition(
        type=HUMAN_ASKED,
        status="True",
        reason=shorten(reason, 1024),
        message=shorten(message),
        last_transition_time=report.sent_at or snapshot.now,
        observed_generation=snapshot.call.metadata.generation,
    )
    asked = status.model_copy(
        update={"status_detail": question.sentence, "conditions": set_condition(status.conditions, condition)}
    )
    event = PlannedEvent("Normal", condition.reason, condition.message)
    return CallPlan(asked, events=(event,), requeue_after=seconds_left(snapshot))


def _build_request(snapshot: CallSnapshot, question: Question, requested_at: datetime | None) -> HumanRequest | None:
    call, channel = snapshot.call, snapshot.channel
    if channel is None:
        return None
    return HumanRequest(
        call=ObjectRef.of(call),
        channel=ObjectRef.of(channel),
        kind=question.kind,
        external_call_id=external_call_id(call.namespace, call.name, call.uid),
        run_id=external_run_id(find_task_uid(call)),
        requested_at=requested_at or snapshot.now,
    )


def _find_trouble(snapshot: CallSnapshot, question: Question) -> PlannedEvent | None:
    return _build_not_found(question) if snapshot.channel is None else None


def _build_not_found(question: Question) -> PlannedEvent:
    if question.channel:
        what = f'ContactChannel "{question.channel}" not found: create it, and the request is sent'
    else:
        what = "The MCPServer names no approvalContactChannel any more: nobody is asked"
    return PlannedEvent("Warning", "ContactChannelNotFound", f"{what}, or answer with kubectl")


def _find_loss(snapshot: CallSnapshot, question: Question) -> PlannedEvent | None:
    """The channel is gone through which somebody was asked, and what it took to believe an answer with it."""
    return _build_lost(question) if snapshot.channel is None and question.channel else None


def _build_lost(question: Question) -> PlannedEvent:
    what = f'ContactChannel "{question.channel}" not found: the answer to what it asked may not arrive'
    return PlannedEvent("Warning", "ContactChannelNotFound", f"{what}, so answer with kubectl, kubechain or the page")


def _find_failure(report: HumanResult | None) -> PlannedEvent | None:
    """What a notice says; the words do not change with the number of the attempt, so they are told once."""
    if report is None or report.outcome != "Retrying":
        return None
    reason = report.reason or REASON_REQUEST_FAILED
    return PlannedEvent(
        "Warning", shorten(reason, 128), shorten(report.message or "The request could not be sent", 1024)
    )


def _join(question: Question, trouble: PlannedEvent | None) -> str:
    return shorten(f"{question.sentence}. {trouble.message}" if trouble is not None else question.sentence)


def _keep(detail: str, sentence: str) -> str | None:
    """The detail, if it is this sentence, alone or with trouble behind it; not if the message bus's took its place."""
    return detail if detail == sentence or detail.startswith((f"{sentence}. ", f"{sentence} via ")) else None
