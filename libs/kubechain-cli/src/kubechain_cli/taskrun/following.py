"""Watching one Task and its tool calls, each with a watch that asks for nothing else.

What a list brings again is dropped by its resourceVersion.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from kubechain_cli.taskrun.errors import TaskDeletedError
from kubechain_cli.taskrun.steps import Step, describe_call, describe_task
from kubechain_cli.taskrun.watching import Deleted, watch_objects
from kubechain_common.api.names import LABEL_TASK_UID
from kubechain_common.api.v1alpha1 import Task, TaskRunToolCall
from kubechain_common.kube.client import KubeClient


async def follow_task(kube: KubeClient, task: Task, show: Callable[[Step], None]) -> Task:
    """Show each step of the Task until it is finished, and return its last state.

    Raises `TaskDeletedError` when it is deleted before, and a `KubeError` that waiting would not mend.
    """
    seen: dict[str, TaskRunToolCall] = {}
    latest: Task | None = None
    async with _watch_run(kube, task) as sights:
        while True:
            sight = await sights.get()
            if isinstance(sight, Task):
                if latest is not None and latest.metadata.resource_version == sight.metadata.resource_version:
                    continue
                _show_all(show, describe_task(latest, sight))
                latest = sight
                if sight.finished:
                    return sight
            elif isinstance(sight, TaskRunToolCall):
                _show_all(show, describe_call(seen.get(sight.name), sight))
                seen[sight.name] = sight
            else:
                raise TaskDeletedError(f"Task {task.name!r} was deleted before its end was seen.")


def _show_all(show: Callable[[Step], None], steps: list[Step]) -> None:
    for step in steps:
        show(step)


@asynccontextmanager
async def _watch_run(kube: KubeClient, task: Task) -> AsyncIterator[asyncio.Queue[Task | TaskRunToolCall | Deleted]]:
    sights: asyncio.Queue[Task | TaskRunToolCall | Deleted] = asyncio.Queue()
    # From where the Task was created, not from a list: a list would show a quick run's end only, and none of its steps.
    since = task.metadata.resource_version

    async def watch_task() -> None:
        selector = {"fieldSelector": f"metadata.name={task.name}"}
        async for sight in watch_objects(kube, Task, task.namespace, selector, since):
            mine = isinstance(sight, Task) and sight.uid == task.uid
            sights.put_nowait(sight if mine else Deleted(task.namespace, task.name))

    async def watch_calls() -> None:
        selector = {"labelSelector": f"{LABEL_TASK_UID}={task.uid}"}
        async for sight in watch_objects(kube, TaskRunToolCall, task.namespace, selector, since):
            if isinstance(sight, TaskRunToolCall):
                sights.put_nowait(sight)

    try:
        async with asyncio.TaskGroup() as group:
            watches = [group.create_task(watch_task()), group.create_task(watch_calls())]
            yield sights
            for watch in watches:
                watch.cancel()
    except BaseExceptionGroup as errors:
        # One watch failing is enough to end both; the group has nothing to add to that error.
        raise errors.exceptions[0] from None
