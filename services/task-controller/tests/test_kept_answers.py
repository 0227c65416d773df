"""An answer whose text the API server does not take yet."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.api.v1alpha1.conversation import Message, TokenUsage
from kubechain_common.kube.errors import ForbiddenError
from kubechain_common.messages import LLMResult, ObjectRef
from kubechain_common.runtime.inbox import Inbox
from kubechain_common.testing.builders import build_task
from kubechain_task_controller.task_reconciler import TaskReconciler
from kubechain_task_controller.watched import Watched


class Dispatcher:
    def __init__(self) -> None:
        self.forgotten: list[str] = []

    def subject_of(self, unit: str) -> None:
        return None

    def forget(self, unit: str) -> None:
        self.forgotten.append(unit)


class Quota:
    """An API server that takes a status, and no ConfigMap."""

    async def request(self, method: str, path: str, **_: Any) -> Any:
        raise ForbiddenError("exceeded quota: configmaps")

    async def update_status(self, obj: Task, status: dict[str, Any]) -> Task:
        raw = obj.to_wire()
        metadata = {**raw["metadata"], "resourceVersion": str(int(obj.metadata.resource_version or 0) + 1)}
        return Task.model_validate({**raw, "metadata": metadata, "status": {**raw.get("status", {}), **status}})


class Recorder:
    def event(self, *_: Any) -> None: ...


def build(kube: Quota, dispatcher: Any, inbox: Inbox[LLMResult]) -> TaskReconciler:
    watched = Watched.build(cast("Any", None), "")
    unused = cast("Any", None)
    return TaskReconciler(cast("Any", kube), watched, dispatcher, unused, inbox, cast("Any", Recorder()), unused)


async def test_an_answer_that_can_not_be_stored_yet_is_kept_and_not_asked_for_again() -> None:
    inbox: Inbox[LLMResult] = Inbox(lambda result: result.task, lambda ref: ref.key)
    dispatcher = Dispatcher()
    reconciler = build(Quota(), dispatcher, inbox)
    task = build_task(status={"phase": "SendContextWindowToLLM", "turn": 1, "status": "Ready", "ready": True})
    reconciler._watched.tasks.observe(task)
    message = Message(role="assistant", content="x" * 300_000)
    result = LLMResult(task=ObjectRef.of(task), turn=1, outcome="Message", message=message, usage=TokenUsage())
    async with asyncio.TaskGroup() as group:
        handling = group.create_task(inbox.take(result))
        await asyncio.sleep(0)
        again = await reconciler.reconcile(task.key)
        assert again is not None
        assert again.requeue_after == 10.0
        assert inbox.first(task.uid) is not None
        assert dispatcher.forgotten == []
        handling.cancel()
    known = reconciler._watched.tasks.get(*task.key)
    assert known is not None
    assert known.status.status_detail.startswith("Waiting to store the conversation")
