"""Carries out what ``core.task_decision`` decides about a Task: what it takes back, status, children, request, events.

In this order. Nothing is decided here. Each effect is idempotent, so an error anywhere leaves the rest to the next reconcile.
"""

from __future__ import annotations

import asyncio

from kubechain_common.api.names import turn_key
from kubechain_common.api.v1alpha1 import Agent, Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.task import TaskPhase
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.controller import Result
from kubechain_common.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    TooLargeError,
)
from kubechain_common.kube.event_recorder import EventRecorder
from kubechain_common.kube.status_writer import write_status
from kubechain_common.messages import LLMRequest, LLMResult, ObjectRef
from kubechain_common.messages.topology import ANY, llm_request_subject, llm_result_subject
from kubechain_common.messaging.dispatcher import Dispatcher
from kubechain_common.runtime.clock import now
from kubechain_common.runtime.inbox import Inbox, Parked
from kubechain_common.telemetry.tracing import emit_root_span, new_span_context
from kubechain_task_controller.core.plan import TaskPlan, TaskSnapshot
from kubechain_task_controller.core.task_decision import decide_refused, decide_task
from kubechain_task_controller.core.tool_catalog import ToolCatalog, build_catalog
from kubechain_task_controller.watched import Watched


class TaskReconciler:
    """The shell around the pure core; one instance per leader."""

    def __init__(
        self,
        kube: KubeClient,
        watched: Watched,
        dispatcher: Dispatcher,
        inbox: Inbox[LLMResult],
        recorder: EventRecorder,
    ) -> None:
        self._kube = kube
        self._watched = watched
        self._dispatcher = dispatcher
        self._inbox = inbox
        self._recorder = recorder
        self._refused: dict[str, dict[str, str]] = {}
        self._deleted: dict[tuple[str, str], list[Task]] = {}

    async def reconcile(self, key: tuple[str, str]) -> Result | None:
        """One step of the Task; ``None`` if nothing is left to wait for by time."""
        await self._withdraw_deleted(key)
        task = self._watched.tasks.get(*key)
        await self._inbox.settle_orphans_of(key, task, self._watched.tasks, self._kube)
        if task is None:
            return None
        parked = self._inbox.first(task.uid)
        snapshot = await self._take_snapshot(task, parked.message if parked else None)
        plan = decide_task(snapshot)
        try:
            again = await self._carry_out(snapshot, plan, parked)
        except InvalidError as error:
            refused = decide_refused(snapshot, str(error), too_large=isinstance(error, TooLargeError))
            again = await self._carry_out(snapshot, refused, parked)
        return Result(requeue_after=0.0 if again else plan.requeue_after)

    def handle_deleted(self, task: Task) -> None:
        """The Task was deleted; its reconcile, which is due now, takes its request back."""
        self._refused.pop(turn_key(task.uid, task.status.turn), None)
        if not task.finished:
            self._deleted.setdefault(task.key, []).append(task)

    async def _withdraw_deleted(self, key: tuple[str, str]) -> None:
        for task in list(self._deleted.get(key, ())):
            await self._withdraw(task)
            self._deleted[key].remove(task)
        self._deleted.pop(key, None)

    async def _withdraw(self, task: Task) -> None:
        """Wherever the request of this turn went: the Agent may have had another LLM then."""
        turn = task.status.turn
        everywhere = llm_request_subject(ANY, task.namespace, task.uid, turn)
        agent = self._watched.agents.get(task.namespace, task.spec.agent_ref.name)
        llm = self._watched.llms.get(task.namespace, agent.spec.llm_ref.name) if agent else None
        probable = [llm_request_subject(llm.uid, task.namespace, task.uid, turn)] if llm else []
        await self._dispatcher.withdraw(turn_key(task.uid, turn), *probable, everywhere)

    async def _take_snapshot(self, task: Task, result: LLMResult | None) -> TaskSnapshot:
        agent = self._watched.agents.get(task.namespace, task.spec.agent_ref.name)
        llm = self._watched.llms.get(task.namespace, agent.spec.llm_ref.name) if agent else None
        unit = turn_key(task.uid, task.status.turn)
        subject = llm_request_subject(llm.uid, task.namespace, task.uid, task.status.turn) if llm else None
        return TaskSnapshot(
            task=task,
            now=now(),
            agent=agent,
            llm=ObjectRef.of(llm) if llm else None,
            catalog=self._build_catalog(agent) if agent else ToolCatalog(),
            children={c.name: c for c in self._watched.calls.by_owner(task.uid)},
            refused=self._refused.get(unit, {}),
            result=result,
            request_on_its_way=subject is not None and self._dispatcher.subject_of(unit) == subject,
            source=await self._find_source(task),
            new_span=task.status.span_context or new_span_context(),
        )

    def _build_catalog(self, agent: Agent) -> ToolCatalog:
        names = [ref.name for ref in agent.spec.mcp_servers]
        found = ((name, self._watched.servers.get(agent.namespace, name)) for name in names)
        return build_catalog(agent, {name: server for name, server in found if server is not None})

    async def _find_source(self, task: Task) -> Task | None:
        """The Task whose conversation goes on here; whole, because the informer keeps finished Tasks without theirs."""
        origin = task.spec.context_window_from
        if origin is None or task.status.turn > 0:
            return None
        source = self._watched.tasks.get(task.namespace, origin.task_ref.name)
        if source is None or not source.finished:
            return source
        try:
            return await self._kube.get(Task, source.namespace, source.name)
        except NotFoundError:
            return None

    async def _carry_out(self, snapshot: TaskSnapshot, plan: TaskPlan, parked: Parked[LLMResult] | None) -> bool:
        """True when the Task should be looked at again at once."""
        before = task = snapshot.task
        if plan.withdraw:
            await self._withdraw(task)
        await asyncio.gather(*(self._cancel_call(snapshot.children[name]) for name in plan.cancel))
        if plan.delete:
            await self._kube.delete(Task, task.namespace, task.name, uid=task.uid)
            return False
        if plan.status is not None:
            task = await write_status(self._kube, self._watched.tasks, task, plan.status)
        more = self._settle(task, plan, parked)
        more |= await self._create_children(task, plan.children)
        if plan.send and snapshot.llm is not None:
            await self._send(task, snapshot.llm, snapshot.catalog, fresh=plan.fresh)
        for event in plan.events:
            self._recorder.event(task, event.type, event.reason, event.message)
        if task.finished and not before.finished:
            self._finish(task)
        return more

    def _settle(self, task: Task, plan: TaskPlan, parked: Parked[LLMResult] | None) -> bool:
        if parked is None or not plan.consumed:
            return False
        if parked.message.outcome != "Retrying":
            self._dispatcher.forget(turn_key(task.uid, parked.message.turn))
        return self._inbox.settle(task.uid, parked)

    async def _create_children(self, task: Task, children: tuple[TaskRunToolCall, ...]) -> bool:
        """True when the API server refused one: the next step tells the model."""
        if not children:
            return False
        created = await asyncio.gather(*(self._create_child(task, c) for c in children), return_exceptions=True)
        for outcome in created:
            if isinstance(outcome, BaseException):
                raise outcome
        return not all(created)

    async def _create_child(self, task: Task, child: TaskRunToolCall) -> bool:
        try:
            self._watched.calls.observe(await self._kube.create(child))
        except AlreadyExistsError:
            # Made before a crash, or not yet in the cache.
            self._watched.calls.observe(await self._kube.get(TaskRunToolCall, child.namespace, child.name))
        except (InvalidError, ForbiddenError) as error:  # by the schema, a quota or an admission policy
            self._refused.setdefault(turn_key(task.uid, task.status.turn), {})[child.name] = str(error)
            return False
        return True

    async def _cancel_call(self, call: TaskRunToolCall) -> None:
        body = {"metadata": {"uid": call.uid}, "spec": {"cancel": True}}
        try:
            self._watched.calls.observe(await self._kube.patch(TaskRunToolCall, call.namespace, call.name, body))
        except (NotFoundError, ConflictError):
            return  # gone, and another one may have its name: that one is looked at when it is seen

    async def _send(self, task: Task, llm: ObjectRef, catalog: ToolCatalog, *, fresh: bool) -> None:
        turn = task.status.turn
        subject = llm_request_subject(llm.uid, task.namespace, task.uid, turn)
        before = self._dispatcher.subject_of(turn_key(task.uid, turn))
        if before is not None and before != subject:
            await self._dispatcher.withdraw(turn_key(task.uid, turn))  # the Agent has another LLM now
        request = LLMRequest(
            task=ObjectRef.of(task),
            turn=turn,
            llm=llm,
            messages=task.status.context_window,
            tools=catalog.definitions(),
        )
        await self._dispatcher.publish(
            turn_key(task.uid, turn),
            request,
            subject=subject,
            result_subject=llm_result_subject(task.namespace, task.uid, turn),
            trace=task.status.span_context,
            fresh=fresh,
        )

    def _finish(self, task: Task) -> None:
        status = task.status
        for turn in range(1, status.turn + 1):
            self._refused.pop(turn_key(task.uid, turn), None)
        self._dispatcher.forget(turn_key(task.uid, status.turn))
        if status.span_context is None or status.start_time is None or status.completion_time is None:
            return
        emit_root_span(
            f"invoke_agent {task.spec.agent_ref.name}",
            status.span_context,
            status.start_time,
            status.completion_time,
            attributes={
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.agent.name": task.spec.agent_ref.name,
                "k8s.namespace.name": task.namespace,
                "kubechain.task.name": task.name,
                "kubechain.task.uid": task.uid,
                "kubechain.task.turns": status.turn,
            },
            error=status.error if status.phase == TaskPhase.FAILED else None,
        )
