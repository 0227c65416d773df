"""Reads from the cluster what waits. Only the calls have to be readable: what Task and channel add may be missing."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from pydantic import ValidationError

from kubechain_cli.answering.waiting import Waiting, build_waiting, waits
from kubechain_cli.taskrun.watching import Deleted, Outage, watch_objects
from kubechain_common.api.v1alpha1 import ContactChannel, MCPServer, Resource, Task, TaskRunToolCall
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import ForbiddenError, InvalidError, KubeError, NotFoundError
from kubechain_common.kube.paths import resource_path

R = TypeVar("R", bound=Resource)
Key = tuple[type[Resource], str, str]
"""(kind, namespace, name)."""

_AT_ONCE = 16
"""As many connections as the client has."""
_UNREADABLE = (ForbiddenError, InvalidError, NotFoundError)


class Finder:
    """Finds the calls that wait in one namespace, or in all (empty)."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    async def find(self) -> list[Waiting]:
        """All that wait now, those that have waited longest first. Raises KubeError."""
        calls = [call async for call in self._list_calls() if waits(call)]
        extras = Extras(self._kube)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(look_up(call, extras)) for call in calls]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None  # one is enough to know, and is what callers expect
        found = [task.result() for task in tasks]
        return sorted(found, key=lambda w: (w.since is None, w.since, w.call.namespace, w.call.name))

    async def look_up_if_possible(self, call: TaskRunToolCall) -> Waiting:
        """What `look_up` says; while the API server has a bad moment the call alone, which can be answered as well.

        Raises a KubeError that waiting would not mend.
        """
        try:
            return await look_up(call, Extras(self._kube))
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


class Extras:
    """The objects that add something to the calls of one look: each is asked for once, and only so many at a time.

    A request that waits for a connection may wait as long as any request, so a thousand of them fail together.
    """

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._turns: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._known: dict[Key, Any] = {}

    async def get(self, kind: type[R], namespace: str, name: str) -> R | None:
        """None when it can not be read. Raises KubeError."""
        key = (kind, namespace, name)
        async with self._turns[key]:
            if key not in self._known:
                async with self._slots:
                    self._known[key] = await self._ask(kind, namespace, name)
        found: R | None = self._known[key]
        return found

    async def _ask(self, kind: type[R], namespace: str, name: str) -> R | None:
        try:
            return await self._kube.get(kind, namespace, name)
        except _UNREADABLE:
            return None


async def look_up(call: TaskRunToolCall, extras: Extras) -> Waiting:
    """The call with what its Task and its channel add. Raises KubeError."""
    task = await extras.get(Task, call.namespace, call.spec.task_run_ref.name)
    return build_waiting(call, task.spec.agent_ref.name if task else "", await _channel_of(call, extras))


async def _channel_of(call: TaskRunToolCall, extras: Extras) -> ContactChannel | None:
    if call.spec.target is None:
        return None
    name = call.spec.target.name
    if call.spec.tool_type != "HumanContact":
        server = await extras.get(MCPServer, call.namespace, name)
        if server is None or server.spec.approval_contact_channel is None:
            return None
        name = server.spec.approval_contact_channel.name
    return await extras.get(ContactChannel, call.namespace, name)
