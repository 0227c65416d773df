"""Carries out what ``core.call_decision`` decides about a tool call: what it takes back, status, events, requests."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from kubechain_common.api.names import execution_key
from kubechain_common.api.stored_text import find_task
from kubechain_common.api.v1alpha1 import MCPServer, Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.taskruntoolcall import Decision
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.controller import Result
from kubechain_common.kube.errors import AlreadyExistsError, ForbiddenError, InvalidError, NotFoundError
from kubechain_common.kube.event_recorder import EventRecorder
from kubechain_common.kube.status_writer import write_status
from kubechain_common.kube.text_store import store_text
from kubechain_common.messages import ToolRequest, ToolResult
from kubechain_common.messages.topology import ANY, tool_request_subject, tool_result_subject
from kubechain_common.messaging.dispatcher import Dispatcher
from kubechain_common.messaging.errors import MessagingError
from kubechain_common.messaging.started_calls import StartedCalls
from kubechain_common.runtime.bus_trouble import BusTrouble
from kubechain_common.runtime.clock import now
from kubechain_common.runtime.deletions import Deletions
from kubechain_common.runtime.inbox import Inbox
from kubechain_common.telemetry.logging import get_logger
from kubechain_common.telemetry.tracing import new_span_context, span
from kubechain_toolcall_controller.core.approval import is_rejected
from kubechain_toolcall_controller.core.asking import is_waiting, may_be_unasked
from kubechain_toolcall_controller.core.call_decision import decide_call, decide_kept, decide_refused
from kubechain_toolcall_controller.core.images import drop_images
from kubechain_toolcall_controller.core.plan import CallPlan, CallSnapshot
from kubechain_toolcall_controller.human_requests import HumanRequests
from kubechain_toolcall_controller.sub_tasks import SubTasks
from kubechain_toolcall_controller.watched import Watched

log = get_logger(__name__)


class ToolCallReconciler:
    """The shell around the pure core; one instance per term of leadership."""

    def __init__(
        self,
        kube: KubeClient,
        watched: Watched,
        dispatcher: Dispatcher,
        started_calls: StartedCalls,
        inbox: Inbox[ToolResult],
        people: HumanRequests,
        recorder: EventRecorder,
    ) -> None:
        self._kube = kube
        self._watched = watched
        self._dispatcher = dispatcher
        self._started_calls = started_calls
        self._inbox = inbox
        self._people = people
        self._recorder = recorder
        self._sent_at: dict[str, datetime] = {}
        self._trouble = BusTrouble()
        self._deletions = Deletions(self._withdraw)
        self._since = now()
        self._sub_tasks = SubTasks(kube, watched.sub_tasks, started_calls)

    def look_again(self) -> None:
        """Forgets what was published, which is not known to be on its way any more.

        It may have been published by another leader, or to a broker that lost it.
        """
        self._since = now()
        self._dispatcher.forget_all()
        self._people.forget_all()

    async def reconcile(self, key: tuple[str, str]) -> Result | None:
        """One step of the call."""
        await self._deletions.settle(key)
        call = self._watched.calls.get(*key)
        await self._inbox.settle_orphans_of(key, call, self._watched.calls, self._kube)
        await self._people.settle_orphans_of(key, call, self._watched.calls, self._kube)
        if call is None:
            return None
        try:
            plan = await self._step(call)
        except MessagingError as error:
            await self._show_trouble(call, error)
            raise
        self._trouble.clear(call.uid)
        return Result(requeue_after=plan.requeue_after)

    async def _step(self, call: TaskRunToolCall) -> CallPlan:
        server = self._watched.server_of(call)
        parked, report = self._inbox.first(call.uid), self._people.first_report(call.uid)
        snapshot = CallSnapshot(
            call=call,
            now=now(),
            server=server,
            channel=self._watched.channel_of(call, server),
            result=parked.message if parked else None,
            asked=report.message if report else None,
            sent_at=self._find_sent_at(call, server),
            sub_task=self._sub_tasks.find(call),
            new_span=new_span_context(call.spec.span_context),
        )
        snapshot, plan = await self._keep_images(*await self._decide(snapshot))
        try:
            written = await self._carry_out(snapshot, plan)
        except InvalidError as error:
            plan = decide_refused(snapshot, str(error))
            written = await self._carry_out(snapshot, plan)
        if parked is not None and plan.consumed:
            self._inbox.settle(call.uid, parked)
        if report is not None and plan.noted and self._people.settle(call.uid, report):
            plan = replace(plan, requeue_after=0.0)  # the next report waits
        self._tell(written, plan)  # also while the bus is away: a call that waits can be answered without it
        await self._send(call, written, plan)
        if written.finished:
            self._forget(written)
            if plan.status is not None:
                self._sub_tasks.record(written, snapshot.sub_task.task)
        return plan

    async def _keep_images(self, snapshot: CallSnapshot, plan: CallPlan) -> tuple[CallSnapshot, CallPlan]:
        """Stores what the status will point at; a result whose images can not be kept goes on without them."""
        owner = find_task(snapshot.call)
        if owner is None or snapshot.result is None:
            return snapshot, plan
        try:
            for text in plan.stored:
                await store_text(self._kube, snapshot.call.namespace, owner, text)
        except (InvalidError, ForbiddenError, AlreadyExistsError) as error:
            log.warning("images of a tool result are lost", tool_call=snapshot.call.name, error=str(error))
            snapshot = replace(snapshot, result=drop_images(snapshot.result, str(error)))
            return snapshot, decide_call(snapshot)
        return snapshot, plan

    async def _carry_out(self, snapshot: CallSnapshot, plan: CallPlan) -> TaskRunToolCall:
        """Does what comes before the messages; returns the call as it was written."""
        call = snapshot.call
        if plan.withdraw:
            await self._withdraw(call)
        if plan.withdraw_question:
            await self._people.withdraw(call)
        if plan.cancel_sub_task and snapshot.sub_task.task is not None:
            await self._sub_tasks.cancel(snapshot.sub_task.task)
        if plan.decision is not None:
            return await self._answer(call, plan.decision)
        return await self._write(call, plan)

    async def _send(self, before: TaskRunToolCall, call: TaskRunToolCall, plan: CallPlan) -> None:
        if plan.request is not None:
            await self._route(call, plan.request)
        if plan.question is not None:
            await self._people.publish(call, plan.question, is_new=not is_waiting(before))

    async def _answer(self, call: TaskRunToolCall, decision: Decision) -> TaskRunToolCall:
        """Answers for a person who did not, unless one did meanwhile. Raises ConflictError: look again."""
        guard = {"uid": call.uid, "resourceVersion": call.metadata.resource_version}
        body = {"metadata": guard, "spec": {"decision": decision.to_wire()}}
        answered = await self._kube.patch(TaskRunToolCall, call.namespace, call.name, body)
        self._watched.calls.observe(answered)
        return answered

    def _tell(self, call: TaskRunToolCall, plan: CallPlan) -> None:
        for event in plan.events:
            self._recorder.event(call, event.type, event.reason, event.message)

    async def _show_trouble(self, call: TaskRunToolCall, error: MessagingError) -> None:
        trouble = self._trouble.note(call.uid, error)
        latest = self._watched.calls.get(call.namespace, call.name)
        if trouble is None or latest is None or latest.uid != call.uid:
            return
        plan = decide_kept(latest, trouble)
        self._tell(await self._write(latest, plan), plan)

    def handle_deleted(self, call: TaskRunToolCall) -> None:
        """Notes that the call was deleted; its reconcile, which is due now, takes its request back."""
        self._sent_at.pop(call.uid, None)
        self._trouble.clear(call.uid)
        if not call.finished:
            self._deletions.add(call)

    def _forget(self, call: TaskRunToolCall) -> None:
        """Forgets what was known of the call, which has ended."""
        self._dispatcher.forget(call.uid)
        self._people.forget(call.uid)
        self._sent_at.pop(call.uid, None)

    async def _decide(self, snapshot: CallSnapshot) -> tuple[CallSnapshot, CallPlan]:
        """The plan, once all that it has to know first has been found out: one answer may lead to another question."""
        while True:
            plan = decide_call(snapshot)
            answered = await self._find_out(snapshot, plan)
            if answered == snapshot:
                return snapshot, plan
            snapshot = answered

    async def _find_out(self, snapshot: CallSnapshot, plan: CallPlan) -> CallSnapshot:
        """The snapshot with the answer to what the plan asks; the same one if it asks nothing, or nothing is news."""
        if plan.ask_task:
            return replace(snapshot, task_over=await self._is_task_over(snapshot.call))
        if plan.ask_server:
            return await self._ask_server(snapshot)
        if plan.stop:
            return replace(snapshot, stopped=await self._stop(snapshot.call))
        if plan.delegate is not None or plan.ask_sub_task:
            return replace(snapshot, sub_task=await self._sub_tasks.find_out(snapshot.call, plan.delegate))
        return snapshot

    async def _ask_server(self, snapshot: CallSnapshot) -> CallSnapshot:
        """What the API server has of a server that our cache lacks; its word for a call must not be a stale one."""
        call = snapshot.call
        assert call.spec.target is not None  # a call for no tool has no server
        try:
            server = await self._kube.get(MCPServer, call.namespace, call.spec.target.name)
        except NotFoundError:
            return replace(snapshot, server_asked=True)
        return replace(
            snapshot,
            server=server,
            server_asked=True,
            channel=self._watched.channel_of(call, server),
            sent_at=self._find_sent_at(call, server),
        )

    async def _is_task_over(self, call: TaskRunToolCall) -> bool:
        owners = {owner.uid for owner in call.metadata.owner_references or ()}
        try:
            task = await self._kube.get(Task, call.namespace, call.spec.task_run_ref.name)
        except NotFoundError:
            return bool(owners)
        return task.finished or (bool(owners) and task.uid not in owners)

    async def _stop(self, call: TaskRunToolCall) -> bool:
        """Takes the request back; True when the call had not begun, and never will.

        First the key: a host that holds the request already, and does not hear that it was taken back, finds it.
        """
        key = execution_key(call.namespace, call.name)
        if is_waiting(call) or is_rejected(call):  # it was not sent, so it does not matter how young the record is
            stopped = await self._started_calls.forbid(key)
        else:
            requested_at = call.spec.requested_at or call.metadata.creation_timestamp or now()
            stopped = await self._started_calls.cancel(key, requested_at)
        await self._withdraw(call)
        return stopped

    async def _withdraw(self, call: TaskRunToolCall) -> None:
        if may_be_unasked(call):
            await self._people.withdraw(call)
        if call.spec.tool_type == "HumanContact":
            return
        server = self._watched.server_of(call)
        probable = [tool_request_subject(server.uid, call.namespace, call.uid)] if server else []
        await self._dispatcher.withdraw(call.uid, *probable, tool_request_subject(ANY, call.namespace, call.uid))

    async def _write(self, call: TaskRunToolCall, plan: CallPlan) -> TaskRunToolCall:
        if plan.status is None:
            return call
        return await write_status(self._kube, self._watched.calls, call, plan.status)

    def _find_sent_at(self, call: TaskRunToolCall, server: MCPServer | None) -> datetime | None:
        """When the request was sent; None if none is on its way to this very server. One that was deleted and made
        again has another subject.
        """
        known = self._dispatcher.subject_of(call.uid)
        if known is None or (
            server is not None and known != tool_request_subject(server.uid, call.namespace, call.uid)
        ):
            return None
        return self._sent_at.get(call.uid)

    async def _route(self, call: TaskRunToolCall, request: ToolRequest) -> None:
        attributes = {
            "gen_ai.tool.name": call.spec.tool_ref.name,
            "gen_ai.tool.call.id": call.spec.tool_call_id,
            "kubechain.tool_call.name": call.name,
        }
        with span(f"route {call.spec.tool_ref.name}", call.spec.span_context, attributes=attributes) as routing:
            await self._dispatcher.publish(
                call.uid,
                request,
                subject=tool_request_subject(request.server.uid, call.namespace, call.uid),
                result_subject=tool_result_subject(call.namespace, call.uid),
                trace=routing.context,
                new_since=request.requested_at if request.requested_at > self._since else None,
            )
        self._sent_at.setdefault(call.uid, now())
