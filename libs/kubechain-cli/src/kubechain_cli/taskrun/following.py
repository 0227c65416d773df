"""Watching one Task and its tool calls, each with a watch that asks for nothing else, and hearing what its LLM writes.

What a list brings again is dropped by its resourceVersion.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from kubechain_cli.taskrun.errors import LiveTextError, TaskDeletedError
from kubechain_cli.taskrun.live_text import hear_text
from kubechain_cli.taskrun.steps import Step, describe_call, describe_task, said_last
from kubechain_cli.taskrun.watching import Deleted, Outage, watch_objects
from kubechain_common.api.names import LABEL_TASK_UID
from kubechain_common.api.v1alpha1 import Task, TaskRunToolCall
from kubechain_common.kube.client import KubeClient
from kubechain_common.messages.live import LLMDelta

NO_TEXT = "the text is shown once it is complete"


@dataclass(frozen=True)
class LiveText:
    """Where to hear what the model writes, None where that is unknown, and what to do with it: with each piece, and
    with the turn and the content of the message that it becomes.
    """

    url: str | None
    take: Callable[[LLMDelta], None]
    complete: Callable[[int, str], None]


Sight = Task | TaskRunToolCall | Deleted | LLMDelta | Step


async def follow_task(kube: KubeClient, task: Task, show: Callable[[Step], None], live: LiveText | None = None) -> Task:
    """Show each step of the Task, and what is written for it, until it is finished, and return its last state.

    Raises ``TaskDeletedError`` when it is deleted before, and a ``KubeError`` that waiting would not mend.
    """
    seen: dict[str, TaskRunToolCall] = {}
    latest: Task | None = None
    async with _watch_run(kube, task, live) as sights:
        while True:
            sight = await sights.get()
            if isinstance(sight, Task):
                if latest is not None and latest.metadata.resource_version == sight.metadata.resource_version:
                    continue
                if live is not None and (content := said_last(sight)):
                    live.complete(sight.status.turn, content)
                _show_all(show, describe_task(latest, sight))
                latest = sight
                if sight.finished:
                    return sight
            elif isinstance(sight, TaskRunToolCall):
                _show_all(show, describe_call(seen.get(sight.name), sight))
                seen[sight.name] = sight
            elif isinstance(sight, Step):
                show(sight)
            elif isinstance(sight, LLMDelta):
                if live is not None:
                    live.take(sight)
            else:
                raise TaskDeletedError(f"Task {task.name!r} was deleted before its end was seen.")


def _show_all(show: Callable[[Step], None], steps: list[Step]) -> None:
    for step in steps:
        show(step)


@asynccontextmanager
async def _watch_run(kube: KubeClient, task: Task, live: LiveText | None) -> AsyncIterator[asyncio.Queue[Sight]]:
    sights: asyncio.Queue[Sight] = asyncio.Queue()
    # From where the Task was created, not from a list: a list would show a quick run's end only, and none of its steps.
    since = task.metadata.resource_version
    outage = Outage(lambda error: sights.put_nowait(Step("waiting", f"no news of it for now: {error}")))

    async def watch_task() -> None:
        selector = {"fieldSelector": f"metadata.name={task.name}"}
        async for sight in watch_objects(kube, Task, task.namespace, selector, since, outage):
            mine = isinstance(sight, Task) and sight.uid == task.uid
            sights.put_nowait(sight if mine else Deleted(task.namespace, task.name))

    async def watch_calls() -> None:
        selector = {"labelSelector": f"{LABEL_TASK_UID}={task.uid}"}
        async for sight in watch_objects(kube, TaskRunToolCall, task.namespace, selector, since, outage):
            if isinstance(sight, TaskRunToolCall):
                sights.put_nowait(sight)

    async def watch_text(url: str | None) -> None:
        if url is None:
            sights.put_nowait(Step("progress", f"{NO_TEXT}: KUBECHAIN_NATS_URL does not say where NATS is"))
            return
        try:
            await hear_text(url, task, sights.put_nowait)
        except LiveTextError as error:
            sights.put_nowait(Step("progress", f"{NO_TEXT}: {error}"))

    try:
        async with asyncio.TaskGroup() as group:
            watches = [group.create_task(watch_task()), group.create_task(watch_calls())]
            if live is not None:
                watches.append(group.create_task(watch_text(live.url)))
            yield sights
            for watch in watches:
                watch.cancel()
    except BaseExceptionGroup as errors:
        # One watch failing is enough to end both; the group has nothing to add to that error.
        raise errors.exceptions[0] from None
