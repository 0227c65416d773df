"""The next step of a tool call: approval, then the MCP route, then its result; one pure function of a snapshot.

    Pending -> [AwaitingHumanApproval -> ReadyToExecute | ToolCallRejected] -> (Running) -> Succeeded | Failed

A call that ends quickly is written once, at its end. One that runs longer than ``SHOW_RUNNING_AFTER`` is shown as
Running, which costs a second write. A call is approved with ``spec.decision``: whoever may set it with kubectl has
decided. With ``spec.cancel`` it ends as Failed, reason Cancelled, wherever it stands; a result that came first counts.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from kubechain_common.api.names import execution_key
from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.api.v1alpha1.status import shorten
from kubechain_common.api.v1alpha1.taskruntoolcall import TaskRunToolCallStatus, ToolCallPhase, ToolTarget
from kubechain_common.messages import ObjectRef, ToolRequest, ToolResult
from kubechain_common.messages.tool import REASON_CANCELLED, REASON_OUTCOME_UNKNOWN, REASON_TOOL_NOT_FOUND
from kubechain_common.messages.trouble import Trouble
from kubechain_toolcall_controller.core.plan import NOTHING, CallPlan, CallSnapshot, PlannedEvent

SHOW_RUNNING_AFTER = 1.0
"""Seconds."""

TASK_ASKED_AFTER = 5.0
"""Seconds after which a call that was not sent yet is not sent without a look at its Task, which may have ended."""


def decide_call(snapshot: CallSnapshot) -> CallPlan:
    """What is to be done about the call now."""
    call = snapshot.call
    if call.finished:
        return CallPlan(consumed=True)
    if call.metadata.deleting:
        return CallPlan(consumed=True, withdraw=True)
    result = snapshot.result
    if result is not None and result.reason != REASON_CANCELLED:
        return _apply_result(snapshot, result)
    # A host that was kept from the call may say so before spec.cancel is seen here.
    if call.spec.cancel or snapshot.task_over or result is not None:
        return _cancel(snapshot)
    target = call.spec.target
    if call.spec.tool_type is None or target is None:
        name = call.spec.tool_ref.name
        return _fail(snapshot, REASON_TOOL_NOT_FOUND, f'Unknown tool "{name}": the agent has no tool of this name')
    if call.spec.tool_type != "MCP":
        return _fail(snapshot, "Unsupported", f"Tools of type {call.spec.tool_type} are not supported by this version")
    return _decide_mcp(snapshot, target)


def decide_refused(snapshot: CallSnapshot, refusal: str) -> CallPlan:
    """The plan when the API server does not take the result: too large, or against the schema."""
    return _fail(snapshot, "ResultRefused", f"The tool ran, but the API server refused its result: {refusal}")


def _cancel(snapshot: CallSnapshot) -> CallPlan:
    if snapshot.stopped is None:
        return CallPlan(stop=True)
    why = "The Task of this call has ended" if snapshot.task_over else "The call was cancelled"
    if snapshot.stopped:
        event = PlannedEvent("Normal", "Cancelled", f"{why}; it was not started")
    else:
        unknown = f"{why}; it had been started, or may have been: whether it took effect is unknown"
        event = PlannedEvent("Warning", "Cancelled", unknown)
    plan = _end(snapshot, ToolCallPhase.FAILED, event.message, "Cancelled", error=event.message)
    return replace(plan, events=(event,))


def decide_kept(call: TaskRunToolCall, trouble: Trouble) -> CallPlan:
    """The plan when the message bus keeps the call from going on: say so, once."""
    detail = shorten(trouble.detail)
    if call.finished or call.status.status_detail == detail:
        return NOTHING
    status = call.status.model_copy(update={"status_detail": detail})
    return CallPlan(status, events=(PlannedEvent("Warning", trouble.reason, detail),))


def _decide_mcp(snapshot: CallSnapshot, target: ToolTarget) -> CallPlan:
    server = snapshot.server
    sent = snapshot.sent_at is not None or snapshot.call.status.phase == ToolCallPhase.RUNNING
    if server is None:
        if sent:
            gone = (
                f'MCPServer "{target.name}" was deleted while the call was running: whether it took effect is unknown'
            )
            return _fail(snapshot, REASON_OUTCOME_UNKNOWN, gone)
        return _fail(snapshot, "ServerNotFound", f'MCPServer "{target.name}" does not exist')
    channel = server.spec.approval_contact_channel
    if not sent and (channel is not None or _is_awaiting(snapshot.call)):  # a call under way is not asked about
        pending = _decide_approval(snapshot, channel.name if channel else "")
        if pending is not None:
            return pending
    return _decide_run(snapshot, target)


def _is_awaiting(call: TaskRunToolCall) -> bool:
    return call.status.status == "AwaitingHumanApproval"


def _decide_approval(snapshot: CallSnapshot, channel: str) -> CallPlan | None:
    """None once the call may run."""
    call, status = snapshot.call, snapshot.call.status
    if status.status == "Ready":
        return None  # approved before, and written down
    decision = call.spec.decision
    if decision is None:
        return NOTHING if _is_awaiting(call) else _await_approval(snapshot, channel)
    if not decision.approved:
        comment = decision.comment or "The call was rejected by a human."
        return _end(snapshot, ToolCallPhase.TOOL_CALL_REJECTED, "Tool execution rejected", "Rejected", result=comment)
    # The time of approval is written before the request goes out: an approved call counts as started from here on.
    ready = status.model_copy(
        update={"status": "Ready", "status_detail": "Ready to execute approved tool", "start_time": snapshot.now}
    )
    event = PlannedEvent("Normal", "Approved", "Ready to execute approved tool")
    return CallPlan(ready, events=(event,), requeue_after=0.0)


def _await_approval(snapshot: CallSnapshot, channel: str) -> CallPlan:
    status = snapshot.call.status.model_copy(
        update={
            "phase": ToolCallPhase.PENDING,
            "status": "AwaitingHumanApproval",
            "status_detail": f"Waiting for human approval via contact channel {channel}",
            "start_time": snapshot.now,
        }
    )
    message = f"Tool execution requires approval via contact channel {channel}"
    return CallPlan(status, events=(PlannedEvent("Normal", "AwaitingHumanApproval", message),))


def _decide_run(snapshot: CallSnapshot, target: ToolTarget) -> CallPlan:
    call, server = snapshot.call, snapshot.server
    assert server is not None  # _decide_mcp says so
    if snapshot.sent_at is None:
        age = (snapshot.now - (call.spec.requested_at or snapshot.now)).total_seconds()
        if age > TASK_ASKED_AFTER and snapshot.task_over is None:
            return CallPlan(ask_task=True)
        request = ToolRequest(
            call=ObjectRef.of(call),
            execution_key=execution_key(call.namespace, call.name),
            server=ObjectRef.of(server),
            tool=target.tool or "",
            arguments=_arguments(call),
            requested_at=_free_to_run_since(call, snapshot.now),
        )
        return CallPlan(request=request, requeue_after=SHOW_RUNNING_AFTER)
    left = (snapshot.sent_at + timedelta(seconds=SHOW_RUNNING_AFTER) - snapshot.now).total_seconds()
    if call.status.phase == ToolCallPhase.RUNNING:
        return NOTHING
    if left > 0:
        return CallPlan(requeue_after=left)
    running = call.status.model_copy(
        update={
            "phase": ToolCallPhase.RUNNING,
            "status": "Ready",
            "status_detail": f'Running on MCPServer "{server.name}"',
            "start_time": call.status.start_time or snapshot.sent_at,
        }
    )
    return CallPlan(running)


def _arguments(call: TaskRunToolCall) -> str:
    decision = call.spec.decision
    edited = decision.arguments if decision is not None and decision.approved else None
    return edited if edited is not None else call.spec.arguments


def _free_to_run_since(call: TaskRunToolCall, now: datetime) -> datetime:
    """When the call was made, or approved. A host that lost its record of started calls judges by this."""
    if call.spec.decision is not None and call.status.start_time is not None:
        return call.status.start_time
    return call.spec.requested_at or call.metadata.creation_timestamp or now


def _apply_result(snapshot: CallSnapshot, result: ToolResult) -> CallPlan:
    if result.outcome == "Failed":
        return _fail(snapshot, result.reason or "ToolError", result.error, started_at=result.started_at)
    name = snapshot.call.spec.tool_ref.name
    plan = _end(
        snapshot,
        ToolCallPhase.SUCCEEDED,
        "MCP tool executed successfully",
        "Succeeded",
        result=result.content,
        started_at=result.started_at,
    )
    event = PlannedEvent("Normal", "ExecutionSucceeded", f'MCP tool "{name}" executed successfully')
    return CallPlan(plan.status, consumed=True, events=(event,))


def _fail(snapshot: CallSnapshot, reason: str, error: str, *, started_at: datetime | None = None) -> CallPlan:
    detail = f"MCP tool execution failed: {error}"
    plan = _end(snapshot, ToolCallPhase.FAILED, detail, reason, error=error, started_at=started_at)
    return CallPlan(plan.status, consumed=True, events=(PlannedEvent("Warning", "ExecutionFailed", shorten(detail)),))


def _end(
    snapshot: CallSnapshot,
    phase: ToolCallPhase,
    detail: str,
    reason: str,
    *,
    result: str = "",
    error: str = "",
    started_at: datetime | None = None,
) -> CallPlan:
    old: TaskRunToolCallStatus = snapshot.call.status
    status = old.model_copy(
        update={
            "phase": phase,
            "status": "Error" if phase == ToolCallPhase.FAILED else "Succeeded",
            "status_detail": shorten(detail),
            "reason": reason,
            "start_time": old.start_time or started_at or snapshot.now,
            "completion_time": snapshot.now,
            "observed_generation": snapshot.call.metadata.generation,
            **({"error": shorten(error, 16384)} if error else {"result": result}),
        }
    )
    rejected = PlannedEvent("Normal", "ToolCallRejected", shorten(f"{detail}: {result}"))
    events = (rejected,) if phase == ToolCallPhase.TOOL_CALL_REJECTED else ()
    return CallPlan(status, consumed=True, events=events)
