"""Which calls wait for approval, and what a decision makes of them.

A decision counts whenever it comes, also before the call waits: then nobody is asked. A rejected call is kept from
beginning before that is written, so that it never runs, whoever may have sent it. If it had begun before, it ends all
the same, and says that nobody knows what came of it.
"""

from __future__ import annotations

from kubechain_common.api.v1alpha1 import MCPServer, TaskRunToolCall
from kubechain_common.api.v1alpha1.status import shorten
from kubechain_common.api.v1alpha1.taskruntoolcall import Decision, ToolCallPhase
from kubechain_common.messages import ToolResult
from kubechain_common.messages.tool import REASON_INVALID_ARGUMENTS, REASON_OUTCOME_UNKNOWN
from kubechain_toolcall_controller.core.answer import describe_answer, mark_answered
from kubechain_toolcall_controller.core.asking import Question, decide_asking, describe_timeout, seconds_left
from kubechain_toolcall_controller.core.ending import build_ended
from kubechain_toolcall_controller.core.plan import CallPlan, CallSnapshot, PlannedEvent

AWAITING = "AwaitingHumanApproval"


def needs_approval(server: MCPServer, tool: str | None) -> bool:
    """Whether a call of this tool waits for a person. What is not known for sure needs approval."""
    policy = server.spec.approval
    if server.spec.approval_contact_channel is None:
        return False
    if policy is None or tool is None:
        return True
    if policy.tools is not None and tool not in policy.tools:
        return False
    return not (policy.skip_read_only and _is_read_only(server, tool))


def _is_read_only(server: MCPServer, tool: str) -> bool:
    """Whether the server, as it is configured now, says that the tool only reads; the tools of a former configuration
    prove nothing.
    """
    status = server.status
    if not status.connected or status.observed_generation != server.metadata.generation:
        return False
    named = [t for t in status.tools if t.name == tool]
    return bool(named) and all(t.annotations is not None and t.annotations.read_only_hint is True for t in named)


def decide_approval(snapshot: CallSnapshot, server: MCPServer) -> CallPlan | None:
    """The next step of a call that was not sent yet; None once it may run."""
    call, decision = snapshot.call, snapshot.call.spec.decision
    if call.status.status == "Ready":
        return None  # approved before, and written down
    guarded = call.status.status == AWAITING or needs_approval(
        server, call.spec.target.tool if call.spec.target else None
    )
    if decision is None:
        return _wait(snapshot, server) if guarded else None
    if not decision.approved:
        return _reject(snapshot, decision)
    return _approve(snapshot, decision) if guarded else None


def _wait(snapshot: CallSnapshot, server: MCPServer) -> CallPlan:
    left = seconds_left(snapshot) if snapshot.call.status.status == AWAITING else None
    if left is not None and left <= 0:
        return CallPlan(decision=_decide_in_nobodys_place(snapshot), requeue_after=0.0)
    channel = server.spec.approval_contact_channel
    return decide_asking(snapshot, Question("Approval", channel.name if channel is not None else ""))


def _decide_in_nobodys_place(snapshot: CallSnapshot) -> Decision:
    """The decision that the deadline gives because nobody has decided. It races with all other answers: a person's that
    came a moment before counts.
    """
    channel = snapshot.channel
    return Decision(
        approved=channel is not None and channel.spec.on_timeout == "Approve",
        comment=describe_timeout(snapshot),
        by="deadline",
        via="deadline",
        at=snapshot.now,
    )


def _approve(snapshot: CallSnapshot, decision: Decision) -> CallPlan:
    # The time of approval is written before the request goes out: an approved call counts as started from here on.
    ready = snapshot.call.status.model_copy(
        update={"status": "Ready", "status_detail": "Ready to execute approved tool", "start_time": snapshot.now}
    )
    event = PlannedEvent("Normal", "Approved", "Ready to execute approved tool")
    answered = mark_answered(snapshot.call, ready, decision, snapshot.now)
    return CallPlan(answered, events=(event,), requeue_after=0.0)


def is_rejected(call: TaskRunToolCall) -> bool:
    return call.spec.decision is not None and not call.spec.decision.approved


def _reject(snapshot: CallSnapshot, decision: Decision) -> CallPlan:
    if snapshot.stopped is None:
        return CallPlan(stop=True)
    if not snapshot.stopped:
        return _reject_too_late(snapshot, decision)
    comment = decision.comment or "The call was rejected by a human."
    detail = "Tool execution rejected"
    status = build_ended(snapshot, ToolCallPhase.TOOL_CALL_REJECTED, detail, "Rejected", result=comment)
    event = PlannedEvent("Normal", "ToolCallRejected", shorten(f"{detail}: {comment}"))
    answered = mark_answered(snapshot.call, status, decision, snapshot.now)
    return CallPlan(answered, consumed=True, events=(event,))


def _reject_too_late(snapshot: CallSnapshot, decision: Decision) -> CallPlan:
    """A call of this name had been started before: by one that was deleted since, or after the snapshot of a restore.

    It is not sent, because a tool that may run twice would run again for it.
    """
    late = "The call was rejected; it had been started, or may have been: whether it took effect is unknown"
    error = f"{late}. The comment: {decision.comment}" if decision.comment else late
    status = build_ended(snapshot, ToolCallPhase.FAILED, error, REASON_OUTCOME_UNKNOWN, error=error)
    event = PlannedEvent("Warning", "ToolCallRejected", shorten(error))
    answered = mark_answered(snapshot.call, status, decision, snapshot.now)
    return CallPlan(answered, consumed=True, events=(event,))


def choose_arguments(call: TaskRunToolCall) -> str:
    """The arguments for the tool: the model's, unless whoever approved the call has put others in their place."""
    edited = _find_edited(call)
    return edited.arguments or "" if edited is not None else call.spec.arguments


def blame_editor(call: TaskRunToolCall, result: ToolResult) -> ToolResult:
    """The result. A failure because of arguments that are not the model's says whose they are."""
    edited = _find_edited(call)
    if edited is None or result.reason != REASON_INVALID_ARGUMENTS:
        return result
    whose = f"The arguments are not those of the model but were edited ({describe_answer(edited)})"
    return result.model_copy(update={"error": f"{whose}: {result.error}"})


def _find_edited(call: TaskRunToolCall) -> Decision | None:
    decision = call.spec.decision
    return decision if decision is not None and decision.approved and decision.arguments is not None else None
