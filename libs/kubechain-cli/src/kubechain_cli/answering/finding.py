"""Reads from the cluster what waits. Only the calls have to be readable: what Task and channel add may be missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from pydantic import ValidationError

from kubechain_cli.answering.waiting import Waiting, build_waiting, waits
from kubechain_cli.taskrun.watching import Deleted, Outage, watch_objects
from kubechain_common.api.v1alpha1 import ContactChannel, MCPServer, Task, TaskRunToolCall
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import ForbiddenError, InvalidError, KubeError, NotFoundError
from kubechain_common.kube.paths import resource_path

_UNREADABLE = (ForbiddenError, InvalidError, NotFoundError)


class Finder:
    """Finds the calls that wait in one namespace, or in all (empty)."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    async def find(self) -> list[Waiting]:
        """All that wait now, those that have waited longest first. Raises KubeError."""
        calls = [call async for call in self._list_calls() if waits(call)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.look_up(call)) for call in calls]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None  # one is enough to know, and is what callers expect
        found = [task.result() for task in tasks]
        return sorted(found, key=lambda w: (w.since is None, w.since, w.call.namespace, w.call.name))

    async def look_up(self, call: TaskRunToolCall) -> Waiting:
        """The call with what its Task and its channel add. Raises KubeError."""
        return build_waiting(call, await self._agent_of(call), await self._channel_of(call))

    async def look_up_if_possible(self, call: TaskRunToolCall) -> Waiting:
        """The same while the API server has a bad moment: then the call alone, which can be answered all the same.

        Raises a KubeError that waiting would not mend.
        """
        try:
            return await self.look_up(call)
        except KubeError as error:
            if not error.retryable:
                raise
            return Waiting(call)

    async def watch(self, tell: Callable[[KubeError], None]) -> AsyncIterator[TaskRunToolCall | Deleted]:
        """Every call that this version can read, as it is now and whenever it changes; ``tell`` why there is no news.

        Raises a KubeError that waiting would not mend, and any of the beginning.
        """
        outage, kube = Outage(tell), self._kube
        async for sight in watch_objects(kube, TaskRunToolCall, self._namespace, {}, "", outage, skip_unreadable=True):
            yield sight

    async def _list_calls(self) -> AsyncIterator[TaskRunToolCall]:
        path, token = resource_path(TaskRunToolCall, self._namespace), ""
        while True:
            page = await self._kube.list_page(path, continue_token=token)
            for item in page.items:
                try:
                    yield TaskRunToolCall.model_validate(item)
                except ValidationError:
                    continue  # nobody can answer what this version can not read
            token = page.continue_token
            if not token:
                return

    async def _agent_of(self, call: TaskRunToolCall) -> str:
        try:
            task = await self._kube.get(Task, call.namespace, call.spec.task_run_ref.name)
        except _UNREADABLE:
            return ""
        return task.spec.agent_ref.name

    async def _channel_of(self, call: TaskRunToolCall) -> ContactChannel | None:
        if call.spec.target is None:
            return None
        name = call.spec.target.name
        try:
            if call.spec.tool_type != "HumanContact":
                server = await self._kube.get(MCPServer, call.namespace, name)
                if server.spec.approval_contact_channel is None:
                    return None
                name = server.spec.approval_contact_channel.name
            return await self._kube.get(ContactChannel, call.namespace, name)
        except _UNREADABLE:
            return None
