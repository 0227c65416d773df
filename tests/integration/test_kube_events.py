"""Events as a person sees them with kubectl."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import pytest

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.kube import event_recorder
from kubechain_common.kube.client import MERGE_PATCH, KubeClient, ListPage
from kubechain_common.kube.event_recorder import EventRecorder
from kubechain_common.kube.paths import core_path

pytestmark = pytest.mark.integration


class ControlPlane(Protocol):
    kubeconfig: Path


async def create_task(kube: KubeClient, namespace: str, name: str = "a") -> Task:
    spec: dict[str, Any] = {"agentRef": {"name": "x"}, "userMessage": "hello"}
    return await kube.create(Task.model_validate({"metadata": {"namespace": namespace, "name": name}, "spec": spec}))


async def record(recorder: EventRecorder, *events: tuple[Task, str]) -> None:
    """Records the events and has them written, as one process does in its life."""
    async with asyncio.TaskGroup() as group:
        run = group.create_task(recorder.run())
        for task, message in events:
            recorder.event(task, "Normal", "Waiting", message)
            assert await recorder.flush(10)
        run.cancel()


async def events_in(kube: KubeClient, namespace: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await kube.request("GET", core_path("events", namespace)))["items"]
    return items


async def test_kubectl_describe_counts_what_repeats(
    kube: KubeClient, namespace: str, control_plane: ControlPlane
) -> None:
    task = await create_task(kube, namespace)
    recorder = EventRecorder(kube, "task-controller")
    await record(recorder, (task, "no agent"), (task, "no agent"), (task, "no llm"))
    first, _ = sorted(await events_in(kube, namespace), key=lambda event: str(event["message"]))
    # As if the first sighting had been a while ago.
    path = core_path("events", namespace, first["metadata"]["name"])
    earlier = {"firstTimestamp": first["firstTimestamp"].replace("20", "19", 1)}
    await kube.request("PATCH", path, body=earlier, content_type=MERGE_PATCH)
    kubectl = shutil.which("kubectl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    assert kubectl
    described = await asyncio.to_thread(
        subprocess.run,
        [kubectl, "--kubeconfig", str(control_plane.kubeconfig), "describe", "task", "a", "-n", namespace],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    lines = [line.split() for line in described.stdout.partition("Events:")[2].splitlines()]
    assert any(
        re.fullmatch(r"Normal Waiting \S+ \(x2 over \S+\) task-controller no agent", " ".join(line)) for line in lines
    )
    assert any(re.fullmatch(r"Normal Waiting \S+ task-controller no llm", " ".join(line)) for line in lines)


async def test_the_count_goes_on_in_the_next_process(kube: KubeClient, namespace: str) -> None:
    task = await create_task(kube, namespace)
    for _ in range(3):
        await record(EventRecorder(kube, "task-controller"), (task, "no agent"))
    (event,) = await events_in(kube, namespace)
    assert event["count"] == 3
    assert event["involvedObject"]["uid"] == task.uid


async def test_a_restart_reads_what_was_said_once_however_many_objects_it_is_about(
    kube: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [await create_task(kube, namespace, f"t{number}") for number in range(5)]
    said = [(task, words) for task in tasks for words in ("no agent", "no llm")]
    await record(EventRecorder(kube, "task-controller"), *said)
    monkeypatch.setattr(event_recorder, "_PAGE", 3)
    listed: list[str] = []
    asked = kube.list_page

    async def list_page(path: str, **options: Any) -> ListPage:
        listed.append(path)
        return await asked(path, **options)

    monkeypatch.setattr(kube, "list_page", list_page)
    await record(EventRecorder(kube, "task-controller"), *said)
    assert len(listed) == 4, "pages of three for ten events"
    assert {event["count"] for event in await events_in(kube, namespace)} == {2}


async def test_a_forgotten_event_is_written_anew(kube: KubeClient, namespace: str) -> None:
    task = await create_task(kube, namespace)
    recorder = EventRecorder(kube, "task-controller")
    await record(recorder, (task, "no agent"))
    (event,) = await events_in(kube, namespace)
    await kube.request("DELETE", core_path("events", namespace, event["metadata"]["name"]))
    await record(recorder, (task, "no agent"))
    (event,) = await events_in(kube, namespace)
    assert event["count"] == 1


async def test_components_of_a_process_share_one_worker(kube: KubeClient, namespace: str) -> None:
    task = await create_task(kube, namespace)
    recorder = EventRecorder(kube, "task-controller")
    view = recorder.for_component("agent-controller")
    async with asyncio.TaskGroup() as group:
        run = group.create_task(recorder.run())
        for _ in range(50):
            recorder.event(task, "Normal", "Waiting", "same words")
            view.event(task, "Warning", "Waiting", "same words")
        assert await view.flush(10)
        run.cancel()
    counts = {event["source"]["component"]: event["count"] for event in await events_in(kube, namespace)}
    assert counts == {"task-controller": 50, "agent-controller": 50}


async def test_an_event_that_is_refused_does_not_hold_up_the_others(kube: KubeClient, namespace: str) -> None:
    task = await create_task(kube, namespace)
    metadata = task.metadata.model_copy(update={"namespace": "no-such-namespace"})
    stranger = task.model_copy(update={"metadata": metadata})
    await record(EventRecorder(kube, "task-controller"), (stranger, "lost"), (task, "kept"))
    assert [event["message"] for event in await events_in(kube, namespace)] == ["kept"]


async def test_flush_without_an_answer_gives_up(kube: KubeClient, namespace: str) -> None:
    task = await create_task(kube, namespace)
    recorder = EventRecorder(kube, "task-controller")
    recorder.event(task, "Normal", "Waiting", "nobody writes")
    assert not await recorder.flush(0.05)
