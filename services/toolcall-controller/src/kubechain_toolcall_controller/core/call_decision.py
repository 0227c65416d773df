"""The next step of a tool call: one pure function of a snapshot.

    MCP:          [AwaitingHumanApproval -> Ready | ToolCallRejected] -> (Running) -> Succeeded | Failed
    HumanContact: AwaitingHumanInput -> Succeeded | Failed

The MCP route is here, approvals are in ``approval``, questions to people in ``human_contact``. A call that ends
quickly is written once, at its end. One that runs longer than ``SHOW_RUNNING_AFTER`` is shown as Running, which costs a
second write. With ``spec.cancel`` a call ends as Failed, reason Cancelled, wherever it stands; a result, or a person's
response, that came first counts.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from kubechain_common.api.names import execution_key
from kubechain_common.api.stored_text import find_task
from kubechain_common.api.v1alpha1 import MCPServer, TaskRunToolCall
from kubechain_common.api.v1alpha1.status import shorten
from kubechain_common.api.v1alpha1.taskruntoolcall import ToolCallPhase, ToolTarget
from kubechain_common.messages import ObjectRef, ToolRequest, ToolResult
from kubechain_common.messages.tool import REASON_CANCELLED, REASON_OUTCOME_UNKNOWN, REASON_TOOL_NOT_FOUND
from kubechain_common.messages.trouble import Trouble
from kubechain_toolcall_controller.core.approval import blame_editor, choose_arguments, decide_approval
from kubechain_toolcall_controller.core.asking import close_question
from kubechain_toolcall_controller.core.delegation import decide_delegation, fail_delegation
from kubechain_toolcall_controller.core.ending import build_ended
from kubechain_toolcall_controller.core.human_contact import decide_contact, fail_contact
from kubechain_toolcall_controller.core.images import keep_images
from kubechain_toolcall_controller.core.plan import NOTHING, CallPlan, CallSnapshot, PlannedEvent

SHOW_RUNNING_AFTER = 1.0
"""Seconds after which a call that still runs is shown as Running."""


def decide_call(snapshot: CallSnapshot) -> CallPlan:
    """What is to be done about the call now."""
    return close_question(snapshot, _decide(snapshot))


def _decide(snapshot: CallSnapshot) -> CallPlan:
    call = snapshot.call
    if call.finished:
        return CallPlan(consumed=True)
    if call.metadata.deleting:
        return CallPlan(consumed=True, withdraw=True)
    if call.spec.tool_type == "DelegateToAgent" and call.spec.target is not None:
        return decide_delegation(snapshot)
    result = snapshot.result
    if result is not None and result.reason != REASON_CANCELLED:
        return _apply_result(snapshot, result)
    # A host that was kept from the call may say so before spec.cancel is seen here.
    cancelled = call.spec.cancel or snapshot.task_over or result is not None
    if cancelled and call.spec.response is None:
        return _cancel(snapshot)
    target = call.spec.target
    if call.spec.tool_type is None or target is None:
        name = call.spec.tool_ref.name
        return _fail(snapshot, REASON_TOOL_NOT_FOUND, f'Unknown tool "{name}": the agent has no tool of this name')
    if call.spec.tool_type == "HumanContact":
        return decide_contact(snapshot, target)
    return _decide_mcp(snapshot, target)


def decide_refused(snapshot: CallSnapshot, refusal: str) -> CallPlan:
    """The plan when the API server does not take the result: too large, or against the schema."""
    what = "The tool ran, but the API server refused its result"
    if snapshot.result is None:
        what = "The API server refused what was to be written about the call"
    fail = {"HumanContact": fail_contact, "DelegateToAgent": fail_delegation}.get(
        snapshot.call.spec.tool_type or "", _fail
    )
    return close_question(snapshot, fail(snapshot, "ResultRefused", f"{what}: {refusal}"))


def _cancel(snapshot: CallSnapshot) -> CallPlan:
    call = snapshot.call
    why = _explain_cancel(snapshot)
    if call.spec.tool_type == "HumanContact":
        return _end_cancelled(snapshot, PlannedEvent("Normal", "Cancelled", f"{why}; nobody had answered"))
    if snapshot.stopped is None:
        return CallPlan(stop=True)
    if snapshot.stopped:
        return _end_cancelled(snapshot, PlannedEvent("Normal", "Cancelled", f"{why}; it was not started"))
    unknown = f"{why}; it had been started, or may have been: whether it took effect is unknown"
    return _end_cancelled(snapshot, PlannedEvent("Warning", "Cancelled", unknown))


def _explain_cancel(snapshot: CallSnapshot) -> str:
    call = snapshot.call
    if snapshot.task_over:
        return "The Task of this call has ended"
    if call.spec.cancel or call.spec.decision is None:
        return "The call was cancelled"
    # Approved, and a host was kept from it: it is being cancelled, or was made again under the name of a rejected one.
    return "The call was cancelled, or an earlier one of its name was cancelled or rejected"


def _end_cancelled(snapshot: CallSnapshot, event: PlannedEvent) -> CallPlan:
    status = build_ended(snapshot, ToolCallPhase.FAILED, event.message, "Cancelled", error=event.message)
    return CallPlan(status, consumed=True, events=(event,))


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
        if not snapshot.server_asked:
            return CallPlan(ask_server=True)  # our cache may be behind
        if sent:
            gone = (
                f'MCPServer "{target.name}" was deleted while the call was running: whether it took effect is unknown'
            )
            return _fail(snapshot, REASON_OUTCOME_UNKNOWN, gone)
        return _fail(snapshot, "ServerNotFound", f'MCPServer "{target.name}" does not exist')
    if not sent:  # a call under way is not asked about
        pending = decide_approval(snapshot, server)
        if pending is not None:
            return pending
    return _decide_run(snapshot, server)


def _decide_run(snapshot: CallSnapshot, server: MCPServer) -> CallPlan:
    call, target = snapshot.call, snapshot.call.spec.target
    if snapshot.sent_at is None:
        if snapshot.asks_task_first:
            return CallPlan(ask_task=True)
        request = ToolRequest(
            call=ObjectRef.of(call),
            task=_find_task_ref(call),
            execution_key=execution_key(call.namespace, call.name),
            server=ObjectRef.of(server),
            tool=(target.tool if target else None) or "",
            arguments=choose_arguments(call),
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


def _find_task_ref(call: TaskRunToolCall) -> ObjectRef | None:
    owner = find_task(call)
    return ObjectRef(namespace=call.namespace, name=owner.name, uid=owner.uid) if owner is not None else None


def _free_to_run_since(call: TaskRunToolCall, now: datetime) -> datetime:
    """When the call was made, or approved. A host that lost its record of started calls judges by this."""
    if call.spec.decision is not None and call.status.start_time is not None:
        return call.status.start_time
    return call.spec.requested_at or call.metadata.creation_timestamp or now


def _apply_result(snapshot: CallSnapshot, result: ToolResult) -> CallPlan:
    result = blame_editor(snapshot.call, result)
    if result.outcome == "Failed":
        return _fail(snapshot, result.reason or "ToolError", result.error, started_at=result.started_at)
    name = snapshot.call.spec.tool_ref.name
    images, stored = keep_images(snapshot.call, result)
    status = build_ended(
        snapshot,
        ToolCallPhase.SUCCEEDED,
        "MCP tool executed successfully",
        "Succeeded",
        result=result.content,
        images=images,
        started_at=result.started_at,
    )
    event = PlannedEvent("Normal", "ExecutionSucceeded", f'MCP tool "{name}" executed successfully')
    return CallPlan(status, consumed=True, events=(event,), stored=stored)


def _fail(snapshot: CallSnapshot, reason: str, error: str, *, started_at: datetime | None = None) -> CallPlan:
    detail = f"MCP tool execution failed: {error}"
    status = build_ended(snapshot, ToolCallPhase.FAILED, detail, reason, error=error, started_at=started_at)
    return CallPlan(status, consumed=True, events=(PlannedEvent("Warning", "ExecutionFailed", shorten(detail)),))
