"""How the Tasks of sub-agents are created, found and cancelled, whatever others did before or meanwhile."""

from __future__ import annotations

from typing import Any, cast

import pytest

from kubechain_common.api.names import LABEL_PARENT_CALL_UID, sub_task_name
from kubechain_common.api.v1alpha1 import Task, TaskRunToolCall
from kubechain_common.kube.errors import AlreadyExistsError, ConflictError, ForbiddenError, NotFoundError
from kubechain_common.kube.informer import Key
from kubechain_common.messaging.started_calls import Claim
from kubechain_common.testing.builders import build_call, build_task
from kubechain_toolcall_controller.core.sub_task import SubTask
from kubechain_toolcall_controller.sub_tasks import SubTasks
from kubechain_toolcall_controller.watched import Watched

CALL = build_call(
    toolType="DelegateToAgent", target={"name": "helper"}, arguments='{"message": "Help!"}', spanContext=None
)


def build_child(call: TaskRunToolCall = CALL, *, version: int = 1, label: bool = True, **status: Any) -> Task:
    metadata = {
        "ownerReferences": [call.build_owner_reference().to_wire()],
        "labels": {LABEL_PARENT_CALL_UID: call.uid} if label else {},
        "resourceVersion": str(version),
    }
    return build_task(sub_task_name(CALL.name, "helper"), status=status, metadata=metadata)


class Api:
    """The API server, with at most one Task, and the record of started calls."""

    def __init__(self, task: Task | None = None, *, holder: str = "") -> None:
        self.task = task
        self.holder = holder
        self.refusal: Exception | None = None
        self.created = 0
        self.watched = Watched.build(cast("Any", None), "")
        self.sub_tasks = SubTasks(cast("Any", self), self.watched.sub_tasks, cast("Any", self))

    async def claim(self, key: str, *, holder: str) -> Claim:
        assert key == f"{CALL.namespace}/{CALL.name}"
        self.holder = self.holder or holder
        if self.holder == "cancelled":
            return Claim.CANCELLED
        return Claim.GRANTED if self.holder == holder else Claim.TAKEN

    async def create(self, task: Task) -> Task:
        if self.refusal is not None:
            raise self.refusal
        if self.task is not None:
            raise AlreadyExistsError("there is one")
        self.task = task
        self.created += 1
        return task

    async def get(self, kind: type[Task], namespace: str, name: str) -> Task:
        if self.task is None or self.task.key != (namespace, name):
            raise NotFoundError("none")
        return self.task

    async def patch(self, kind: type[Task], namespace: str, name: str, body: dict[str, Any]) -> Task:
        task = await self.get(kind, namespace, name)
        given = body["metadata"]
        if (given["uid"], given["resourceVersion"]) != (task.uid, task.metadata.resource_version):
            raise ConflictError("another one")
        task.spec.cancel = body["spec"]["cancel"]
        return task

    def enqueued(self) -> list[Key]:
        woken: list[Key] = []
        self.watched.wake_calls(woken.append)
        return woken


async def test_a_task_is_created_once_however_often_it_is_asked_for() -> None:
    api = Api()
    first = await api.sub_tasks.find_out(CALL, build_child())
    again = await api.sub_tasks.find_out(CALL, build_child())
    assert first.task is again.task is api.task
    assert (first.asked, api.created) == (True, 1)
    assert api.sub_tasks.find(CALL).task is not None


async def test_another_call_of_this_name_is_known_by_its_claim_and_by_its_task() -> None:
    earlier = build_call()
    earlier.metadata.uid = "earlier"
    claimed = Api(holder=earlier.uid)
    assert await claimed.sub_tasks.find_out(CALL, build_child()) == SubTask(begun_before=True)
    assert claimed.task is None
    made = Api(build_child(earlier))  # and the record of started calls was lost
    assert await made.sub_tasks.find_out(CALL, build_child()) == SubTask(begun_before=True)
    made.watched.sub_tasks.observe(build_child(earlier))
    assert made.sub_tasks.find(CALL) == SubTask()


async def test_what_was_taken_back_is_not_created() -> None:
    api = Api(holder="cancelled")
    assert await api.sub_tasks.find_out(CALL, build_child()) == SubTask(forbidden=True)
    assert api.created == 0


async def test_a_refusal_is_told_unless_everything_goes_anyway() -> None:
    api = Api()
    api.refusal = ForbiddenError("exceeded quota")
    assert (await api.sub_tasks.find_out(CALL, build_child())).refused == "exceeded quota"
    api.refusal = ForbiddenError("namespace x: forbidden because it is being terminated")
    assert await api.sub_tasks.find_out(CALL, build_child()) == SubTask()


async def test_asking_finds_the_whole_task_or_none() -> None:
    assert await Api().sub_tasks.find_out(CALL, None) == SubTask(asked=True)
    api = Api(build_child(phase="FinalAnswer", output="42"))
    found = await api.sub_tasks.find_out(CALL, None)
    assert found.task is not None
    assert found.task.status.output == "42"
    kept = api.sub_tasks.find(CALL).task
    assert kept is not None
    assert (kept.finished, kept.status.output, kept.spec.user_message) == (True, "", None)


async def test_a_task_without_its_label_is_not_kept_because_nothing_more_is_heard_of_it() -> None:
    api = Api(build_child(label=False))
    assert (await api.sub_tasks.find_out(CALL, None)).task is not None
    assert api.sub_tasks.find(CALL) == SubTask()


async def test_cancelling_leaves_one_alone_that_changed_meanwhile() -> None:
    api = Api(build_child(version=2, phase="FinalAnswer"))
    with pytest.raises(ConflictError):
        await api.sub_tasks.cancel(build_child(version=1))
    assert api.task is not None
    assert api.task.spec.cancel is None
    await api.sub_tasks.cancel(build_child(version=2))
    assert api.task.spec.cancel
    api.task = None
    await api.sub_tasks.cancel(build_child(version=2))


def test_a_call_is_woken_by_what_it_shows_of_its_task_and_by_nothing_else() -> None:
    api = Api()
    woken = api.enqueued()
    tasks = api.watched.sub_tasks

    def news(version: int, **status: Any) -> int:
        woken.clear()
        tasks.observe(build_child(version=version, **status))
        return woken.count(CALL.key)

    assert news(1) == 1
    assert news(2, phase="Pending", status="Pending", statusDetail="Waiting for Agent to exist") == 1
    assert news(3, phase="SendContextWindowToLLM", status="Ready", turn=1) == 1
    assert news(4, phase="ToolCallsPending", status="Ready", turn=1) == 0
    assert news(5, phase="SendContextWindowToLLM", status="Ready", turn=2, statusDetail="again") == 0
    assert news(6, phase="FinalAnswer", status="Ready") == 1
    api.watched.calls.observe(
        build_call(toolType="DelegateToAgent", target={"name": "helper"}, arguments="{}", status={"phase": "Succeeded"})
    )
    assert news(7, phase="Failed", status="Error") == 0
