"""Informer and write_status against a real API server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar

import pytest
from prometheus_client import REGISTRY
from pydantic import Field

from kubechain_common.api.v1alpha1 import Resource, Task
from kubechain_common.api.v1alpha1.meta import KubeModel
from kubechain_common.api.v1alpha1.status import Status
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import ConflictError
from kubechain_common.kube.informer import Change, Informer
from kubechain_common.kube.paths import resource_path
from kubechain_common.kube.status_writer import write_status

pytestmark = pytest.mark.integration

Eventually = Callable[..., Awaitable[None]]
R = TypeVar("R", bound=Resource)


class StatusOfOld(Status):
    """What an older release, which had nothing but turns, knew of a Task's status."""

    turn: int = 0


class TaskOfOld(Resource):
    crd = Task.crd
    status: StatusOfOld = Field(default_factory=StatusOfOld)


def build_task(namespace: str, name: str, **extra: Any) -> Task:
    spec = {"agentRef": {"name": extra.pop("agent", "x")}, "userMessage": extra.pop("message", "hello")}
    return Task.model_validate({"metadata": {"namespace": namespace, "name": name, **extra}, "spec": spec})


@asynccontextmanager
async def running(informer: Informer[R]) -> AsyncIterator[Informer[R]]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(informer.run())
        async with asyncio.timeout(10):
            await informer.wait_synced()
        yield informer
        task.cancel()


async def test_list_and_watch_see_adds_updates_and_deletes(
    kube: KubeClient, namespace: str, eventually: Eventually
) -> None:
    await kube.create(build_task(namespace, "early"))
    seen: list[tuple[str, str]] = []
    informer = Informer(kube, Task, namespace=namespace, indexers={"agent": lambda t: [t.spec.agent_ref.name]})
    informer.add_handler(lambda change: seen.append((change.kind, change.obj.name)))
    async with running(informer):
        assert informer.get(namespace, "early") is not None
        late = await kube.create(build_task(namespace, "late", agent="y"))
        await eventually(lambda: informer.get(namespace, "late") is not None)
        assert [t.name for t in informer.by_index("agent", "y")] == ["late"]
        await kube.update_status(late, {"turn": 7})
        await eventually(lambda: informer.by_index("agent", "y")[0].status.turn == 7)
        await kube.delete(Task, namespace, "early")
        await eventually(lambda: [t.name for t in informer.list()] == ["late"])
    assert seen == [("added", "early"), ("added", "late"), ("modified", "late"), ("deleted", "early")]


async def test_only_what_has_the_label_is_followed(kube: KubeClient, namespace: str, eventually: Eventually) -> None:
    for name in ("early", "late"):
        informer = Informer(kube, Task, namespace=namespace, label_selector="team")
        async with running(informer):
            await kube.create(build_task(namespace, f"{name}-other"))
            await kube.create(build_task(namespace, name, labels={"team": "x"}))
            await eventually(lambda: informer.get(namespace, name) is not None)  # noqa: B023
            assert not [task for task in informer.list() if task.name.endswith("other")]
    informer = Informer(kube, Task, namespace=namespace, label_selector="team")
    async with running(informer):
        assert {task.name for task in informer.list()} == {"early", "late"}
        await kube.patch(Task, namespace, "late", {"metadata": {"labels": None}})
        await eventually(lambda: [task.name for task in informer.list()] == ["early"])


async def test_children_are_found_by_owner(kube: KubeClient, namespace: str, eventually: Eventually) -> None:
    parent = await kube.create(build_task(namespace, "parent"))
    async with running(Informer(kube, Task, namespace=namespace)) as informer:
        owner = parent.build_owner_reference().to_wire()
        await kube.create(build_task(namespace, "child", ownerReferences=[owner]))
        await eventually(lambda: [t.name for t in informer.by_owner(parent.uid)] == ["child"])


async def test_an_own_write_is_read_at_once_and_told_once(
    kube: KubeClient, namespace: str, eventually: Eventually
) -> None:
    changes: list[Change[Task]] = []
    informer = Informer(kube, Task, namespace=namespace)
    informer.add_handler(changes.append)
    async with running(informer):
        task = await kube.create(build_task(namespace, "a"))
        informer.observe(task)
        for turn in range(1, 21):
            task = await write_status(kube, informer, task, task.status.model_copy(update={"turn": turn}))
            cached = informer.get(namespace, "a")
            assert cached is not None
            assert cached.status.turn == turn
        await kube.create(build_task(namespace, "marker"))
        await eventually(lambda: informer.get(namespace, "marker") is not None)
    assert [change.kind for change in changes] == ["added", *["modified"] * 20, "added"]


async def test_a_decision_on_a_stale_copy_is_not_written(kube: KubeClient, namespace: str) -> None:
    informer = Informer(kube, Task, namespace=namespace)
    stale = await kube.create(build_task(namespace, "a"))
    fresh = await write_status(kube, informer, stale, stale.status.model_copy(update={"turn": 1}))
    with pytest.raises(ConflictError):
        await write_status(kube, informer, stale, stale.status.model_copy(update={"turn": 5}))
    unchanged = await write_status(kube, informer, fresh, fresh.status.model_copy(update={"turn": 1}))
    assert unchanged.metadata.resource_version == (await kube.get(Task, namespace, "a")).metadata.resource_version


async def test_an_older_release_keeps_what_a_newer_one_has_written(
    kube: KubeClient, namespace: str, eventually: Eventually
) -> None:
    newer = {"phase": "ToolCallsPending", "output": "", "tokenUsage": {"inputTokens": 7}}
    async with running(Informer(kube, TaskOfOld, namespace=namespace, pack_after=0.01)) as informer:
        task = await kube.create(build_task(namespace, "a"))
        await kube.update_status(task, {"turn": 1, **newer})
        await eventually(lambda: any(t.status.turn == 1 for t in informer.list()))
        old = informer.get(namespace, "a")
        assert old is not None
        await write_status(kube, informer, old, old.status.model_copy(update={"turn": 2}))
    raw = await kube.request("GET", f"{resource_path(Task, namespace)}/a")
    assert raw["status"] == {"turn": 2, **newer}


async def test_an_object_near_the_size_limit_comes_through_the_watch(
    kube: KubeClient, namespace: str, eventually: Eventually
) -> None:
    def window_size(task: Task | None) -> int:
        return sum(len(str(message.content)) for message in task.status.context_window) if task else 0

    async with running(Informer(kube, Task, namespace=namespace)) as informer:
        task = await kube.create(build_task(namespace, "big"))
        window = [{"role": "user", "content": "x" * 450_000} for _ in range(3)]
        await kube.update_status(task, {"contextWindow": window})
        await eventually(lambda: window_size(informer.get(namespace, "big")) == 3 * 450_000)


class PickySpec(KubeModel):
    user_message: Literal["good"]


class PickyTask(Task):
    """A Task that only some of the stored ones parse as."""

    spec: PickySpec  # type: ignore[assignment]


def count_unreadable() -> float:
    return REGISTRY.get_sample_value("kubechain_informer_unreadable", {"kind": "Task"}) or 0.0


async def test_an_unreadable_object_does_not_hide_the_others(
    kube: KubeClient, namespace: str, eventually: Eventually
) -> None:
    before = count_unreadable()
    await kube.create(build_task(namespace, "bad-1", message="bad"))
    await kube.create(build_task(namespace, "good-1", message="good"))
    async with running(Informer(kube, PickyTask, namespace=namespace)) as informer:
        await kube.create(build_task(namespace, "bad-2", message="bad"))
        await kube.create(build_task(namespace, "good-2", message="good"))
        await eventually(lambda: informer.get(namespace, "good-2") is not None)
        assert sorted(t.name for t in informer.list()) == ["good-1", "good-2"]
        assert count_unreadable() == before + 2
        await kube.delete(Task, namespace, "bad-1")
        await eventually(lambda: count_unreadable() == before + 1)


async def test_a_transform_thins_out_what_is_stored(kube: KubeClient, namespace: str) -> None:
    def thin(task: Task) -> Task:
        return task.model_copy(update={"status": task.status.model_copy(update={"output": ""})})

    task = await kube.create(build_task(namespace, "a"))
    await kube.update_status(task, {"output": "long", "turn": 3})
    async with running(Informer(kube, Task, namespace=namespace, transform=thin)) as informer:
        stored = informer.get(namespace, "a")
        assert stored is not None
        assert (stored.status.output, stored.status.turn) == ("", 3)


async def test_handlers_that_raise_or_come_late_are_served(
    kube: KubeClient, namespace: str, eventually: Eventually
) -> None:
    def bad(change: Change[Task]) -> None:
        raise RuntimeError("handler bug")

    seen: list[str] = []
    await kube.create(build_task(namespace, "a"))
    informer = Informer(kube, Task, namespace=namespace)
    informer.add_handler(bad)
    async with running(informer):
        informer.add_handler(lambda change: seen.append(change.obj.name))
        assert seen == ["a"]
        await kube.create(build_task(namespace, "b"))
        await eventually(lambda: seen == ["a", "b"])


async def test_a_thousand_objects_are_synced_over_pages(kube: KubeClient, namespace: str) -> None:
    async with asyncio.TaskGroup() as group:
        for start in range(20):
            group.create_task(_create_many(kube, namespace, start, 1000, 20))
    informer = Informer(kube, Task, namespace=namespace)
    started, cpu = time.perf_counter(), time.process_time()
    async with running(informer):
        wall, used = time.perf_counter() - started, time.process_time() - cpu
        assert len(informer.list()) == 1000
    print(f"\n1000 objects synced in {wall * 1000:.0f} ms ({used * 1000:.0f} ms of CPU)")


async def _create_many(kube: KubeClient, namespace: str, start: int, stop: int, step: int) -> None:
    for number in range(start, stop, step):
        await kube.create(build_task(namespace, f"t-{number:04d}"))
