"""Carries out what is decided about the Tasks of sub-agents: creates, finds and cancels them."""

from __future__ import annotations

from kubechain_common.api.names import LABEL_PARENT_CALL_UID, execution_key
from kubechain_common.api.v1alpha1 import Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.taskruntoolcall import ToolCallPhase
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import (
    AlreadyExistsError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
)
from kubechain_common.kube.informer import Informer
from kubechain_common.messaging.started_calls import Claim, StartedCalls
from kubechain_common.telemetry.tracing import emit_span
from kubechain_toolcall_controller.core.sub_task import SubTask, is_answered_by, name_of_sub_task

_NAMESPACE_GOES = "because it is being terminated"
"""The API server's words for a creation in a namespace that is being deleted."""


class SubTasks:
    """The Tasks that answer calls; the informer knows those that have the label of one."""

    def __init__(self, kube: KubeClient, tasks: Informer[Task], started_calls: StartedCalls) -> None:
        self._kube = kube
        self._tasks = tasks
        self._started_calls = started_calls

    def find(self, call: TaskRunToolCall) -> SubTask:
        """The call's sub-agent, as our cache knows it."""
        name = name_of_sub_task(call)
        task = self._tasks.get(call.namespace, name) if name else None
        return SubTask(task if task is not None and is_answered_by(call, task) else None)

    async def find_out(self, call: TaskRunToolCall, to_create: Task | None) -> SubTask:
        """Creates the Task if it is to be, else asks the API server for it."""
        return await self._ask(call) if to_create is None else await self._create(call, to_create)

    async def _create(self, call: TaskRunToolCall, task: Task) -> SubTask:
        """Creates the Task, at most once for all calls of this name: a call that was deleted and made again does not
        delegate again.
        """
        claim = await self._started_calls.claim(execution_key(call.namespace, call.name), holder=call.uid)
        if claim is not Claim.GRANTED:
            return SubTask(begun_before=claim is Claim.TAKEN, forbidden=claim is Claim.CANCELLED)
        try:
            created = await self._kube.create(task)
        except AlreadyExistsError:
            # Made before a crash; or for an earlier call of this name, and then it is not ours.
            found = await self._ask(call)
            return found if found.task is not None else SubTask(begun_before=True)
        except (InvalidError, ForbiddenError) as error:  # by the schema, a quota or an admission policy
            return SubTask() if _NAMESPACE_GOES in str(error) else SubTask(refused=str(error))
        self._tasks.observe(created)
        return SubTask(created, asked=True)

    async def _ask(self, call: TaskRunToolCall) -> SubTask:
        name = name_of_sub_task(call)
        assert name is not None  # a call for another tool is not asked about
        try:
            task = await self._kube.get(Task, call.namespace, name)
        except NotFoundError:
            return SubTask(asked=True)
        if not is_answered_by(call, task):
            return SubTask(asked=True)
        if LABEL_PARENT_CALL_UID in task.metadata.labels:  # without it nothing more would be heard of it
            self._tasks.observe(task)
        return SubTask(task, asked=True)

    async def cancel(self, task: Task) -> None:
        """Has the Task cancelled; its own controller then cancels what it has under way.

        Raises ConflictError when it has changed meanwhile. It may have ended, and then it stays as it is: to kubectl
        wait, a condition that is older than the spec says nothing.
        """
        metadata = {"uid": task.uid, "resourceVersion": task.metadata.resource_version}
        try:
            patched = await self._kube.patch(
                Task, task.namespace, task.name, {"metadata": metadata, "spec": {"cancel": True}}
            )
        except NotFoundError:
            return
        self._tasks.observe(patched)

    def record(self, call: TaskRunToolCall, task: Task | None) -> None:
        """Records the span of a call that has ended, under the ids that its Task was given as parent."""
        origin = task.spec.delegated_from if task is not None else None
        span, status = origin.span_context if origin else None, call.status
        if task is None or span is None or status.start_time is None or status.completion_time is None:
            return
        emit_span(
            f"execute_tool {call.spec.tool_ref.name}",
            span,
            status.start_time,
            status.completion_time,
            attributes={
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": call.spec.tool_ref.name,
                "gen_ai.tool.type": "function",
                "gen_ai.tool.call.id": call.spec.tool_call_id,
                "kubechain.tool_call.name": call.name,
                "kubechain.sub_task.name": task.name,
            },
            error=status.error if status.phase == ToolCallPhase.FAILED else None,
            parent=call.spec.span_context,
        )
