"""Many Tasks wait for a person at once: they cost nearly nothing, survive every death, and all of them finish.

KUBECHAIN_TEST_WAITING_TASKS=1000 for a thousand, which takes two cores some minutes. The services are killed first, so
that what they hold is the Tasks and not what earlier tests left behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.e2e.support import manifests
from tests.e2e.support.cluster import SERVICES
from tests.e2e.support.workspace import ToolLog, Workspace

from kubechain_common.api.v1alpha1 import Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.taskruntoolcall import HUMAN_ASKED
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.informer import Informer
from kubechain_common.testing.eventually import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(480, func_only=True)]

TASKS = int(os.environ.get("KUBECHAIN_TEST_WAITING_TASKS", "300"))
FIRST = 100
"""What a service loads for its first Tasks is no growth by Task."""
AT_A_TIME = 16
CREATE_SECONDS = 120.0
FINISH_SECONDS = 120.0
CALM_SECONDS = 10.0
CPU_PERCENT = 5.0
AT_REST_PERCENT = 3.0
KIB_PER_TASK = 64.0
"""28 to 44 is what 900 Tasks show, 37 to 49 what 200 do: of what is in flight at once some stays, however many come
later. A third of it is llm-gateway's, which holds nothing of a Task that waits.
"""


@dataclass(frozen=True)
class Load:
    """What the services use, together."""

    cpu_seconds: float
    rss_bytes: int
    at: float

    @classmethod
    def of(cls, workspace: Workspace) -> Load:
        wanted = {p["name"]: p["pid"] for p in workspace.cluster.status()["processes"] if p["name"] in SERVICES}
        processes = [psutil.Process(pid) for pid in wanted.values()]
        cpu = sum(sum(process.cpu_times()[:2]) for process in processes)
        return cls(cpu, sum(process.memory_info().rss for process in processes), time.monotonic())

    def percent_since(self, before: Load) -> float:
        return 100 * (self.cpu_seconds - before.cpu_seconds) / (self.at - before.at)


@pytest.fixture(autouse=True)
def no_backlog(workspace: Workspace) -> Iterator[None]:
    """Thousands of Events that wait to be written would keep the next tests' waiting for minutes."""
    yield
    kill_all(workspace)


async def test_many_tasks_wait_for_approval(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(workspace.cluster.kubeconfig))
    log = guarded_agent(workspace, tmp_path)
    async with KubeClient.connect("kubechain-tests") as kube, following(kube, workspace) as (tasks, calls):
        await asyncio.to_thread(kill_all, workspace)
        await begin(kube, workspace, tasks, calls, range(FIRST))
        few = await calm_load(workspace)
        await begin(kube, workspace, tasks, calls, range(FIRST, TASKS))

        waiting = await calm_load(workspace)
        await asyncio.sleep(CALM_SECONDS)
        later = await asyncio.to_thread(Load.of, workspace)
        cpu = later.percent_since(waiting)
        growth = (later.rss_bytes - few.rss_bytes) / 1024 / (TASKS - FIRST)
        print(f"{TASKS} waiting: {cpu:.1f} % of a core, {growth:.1f} KiB a Task")
        assert cpu < CPU_PERCENT
        assert growth < KIB_PER_TASK

        before = {call.name: call.metadata.resource_version for call in calls.list()}
        await asyncio.to_thread(kill_all, workspace)
        await calm_load(workspace)
        assert {call.name: call.metadata.resource_version for call in calls.list()} == before, "a death changed a call"

        names = sorted(before)
        await each(range(TASKS), lambda i: approve(kube, workspace, names[i]))
        await until(
            lambda: all(task.finished for task in tasks.list()), FINISH_SECONDS, what=lambda: describe(tasks, calls)
        )
        assert Counter(task.status.phase for task in tasks.list()) == {"FinalAnswer": TASKS}
    assert Counter(log.of("start")) == {(f"wait-{i:04d}", 0): 1 for i in range(TASKS)}
    asked = Counter(
        e["involvedObject"]["name"] for e in asked_events(workspace) for _ in range(int(e.get("count") or 1))
    )
    assert set(asked.values()) <= {1}, "somebody was asked twice"


async def begin(
    kube: KubeClient,
    workspace: Workspace,
    tasks: Informer[Task],
    calls: Informer[TaskRunToolCall],
    numbers: Sequence[int],
) -> None:
    """The Tasks of these numbers, until a person has been asked about each."""
    await each(numbers, lambda i: kube.create(build_task(workspace, i)))
    await until(lambda: count_asked(calls) == numbers[-1] + 1, CREATE_SECONDS, what=lambda: describe(tasks, calls))


def guarded_agent(workspace: Workspace, folder: Path) -> ToolLog:
    workspace.kubectl.apply(manifests.build("ContactChannel", "inbox", {"type": "inbox"}))
    return workspace.apply_counting_agent(folder, approvalContactChannel={"name": "inbox"}, maxConcurrency=64)


def build_task(workspace: Workspace, number: int) -> Task:
    name = f"wait-{number:04d}"
    made = manifests.task(name, json.dumps({"task": name, "turns": 1, "parallel": 1, "ms": 0, "llm_ms": 0}))
    made["metadata"]["namespace"] = workspace.namespace
    return Task.model_validate(made)


async def approve(kube: KubeClient, workspace: Workspace, call: str) -> None:
    await kube.patch(
        TaskRunToolCall, workspace.namespace, call, {"spec": {"decision": {"approved": True, "by": "kubernetes-admin"}}}
    )


async def until(condition: Callable[[], object], seconds: float, *, what: Callable[[], str]) -> None:
    await asyncio.to_thread(eventually, condition, seconds, what=what)


async def each(numbers: Sequence[int], act: Callable[[int], Awaitable[object]]) -> None:
    """``act`` for every number, some at a time."""
    room = asyncio.Semaphore(AT_A_TIME)

    async def one(number: int) -> None:
        async with room:
            await act(number)

    async with asyncio.TaskGroup() as group:
        for number in numbers:
            group.create_task(one(number))


@asynccontextmanager
async def following(
    kube: KubeClient, workspace: Workspace
) -> AsyncIterator[tuple[Informer[Task], Informer[TaskRunToolCall]]]:
    tasks = Informer(kube, Task, namespace=workspace.namespace)
    calls = Informer(kube, TaskRunToolCall, namespace=workspace.namespace)
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(tasks.run()), group.create_task(calls.run())]
        await tasks.wait_synced()
        await calls.wait_synced()
        yield tasks, calls
        for watch in running:
            watch.cancel()


def count_asked(calls: Informer[TaskRunToolCall]) -> int:
    return sum(
        any(c.type == HUMAN_ASKED and c.status == "True" for c in call.status.conditions) for call in calls.list()
    )


def describe(tasks: Informer[Task], calls: Informer[TaskRunToolCall]) -> str:
    states = Counter((t.status.phase, t.status.status_detail) for t in tasks.list())
    waits = Counter((c.status.status, c.status.status_detail) for c in calls.list())
    return f"{count_asked(calls)} of {TASKS} asked; Tasks {dict(states)}; calls {dict(waits)}"


def kill_all(workspace: Workspace) -> None:
    pids = {service: int(workspace.cluster.process(service)["pid"]) for service in SERVICES}
    for pid in pids.values():
        os.kill(pid, 9)
    for service, pid in pids.items():
        workspace.cluster.wait_restarted(service, pid)
    workspace.kubectl.wait("agent/my-assistant", timeout=60)


async def calm_load(workspace: Workspace) -> Load:
    """The load once the services have come to rest: the events of the last burst are written, too."""
    last = await asyncio.to_thread(Load.of, workspace)
    for _ in range(150):
        await asyncio.sleep(1)
        now = await asyncio.to_thread(Load.of, workspace)
        if now.percent_since(last) < AT_REST_PERCENT:
            return now
        last = now
    raise AssertionError("the services do not come to rest")


def asked_events(workspace: Workspace) -> list[dict[str, Any]]:
    return workspace.kubectl.list("events", "--field-selector", "reason=HumanRequestSent")
