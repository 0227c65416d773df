from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from kubechain_common.api.turn_calls import child_names
from kubechain_common.api.v1alpha1 import Task, TaskRunToolCall
from kubechain_common.kube.errors import ForbiddenError, NotFoundError, UnavailableError
from kubechain_common.messages import LLMRequest
from kubechain_common.messaging.delivery import Delivery
from kubechain_common.testing.builders import build_call
from kubechain_llm_gateway.calls.task_probe import TaskProbe


class World:
    def __init__(
        self, task: Task | Exception, calls: Mapping[str, TaskRunToolCall] | None = None, *, has_result: bool = False
    ) -> None:
        self._task = task
        self._calls = calls or {}
        self._has_result = has_result

    async def has_message(self, stream: str, subject: str) -> bool:
        assert (stream, subject) == ("KUBECHAIN_LLM_RESULTS", "kubechain.llm.result.default.task-uid.1.0")
        return self._has_result

    async def get(self, kind: type[Any], namespace: str, name: str) -> Any:
        if kind is TaskRunToolCall:
            if name not in self._calls:
                raise NotFoundError(name)
            return self._calls[name]
        assert (kind, namespace, name) == (Task, "default", "hello")
        if isinstance(self._task, Exception):
            raise self._task
        return self._task


def build_task(*, uid: str = "task-uid", cancel: bool = False, deleting: bool = False, **status: Any) -> Task:
    metadata: dict[str, Any] = {"name": "hello", "namespace": "default", "uid": uid}
    if deleting:
        metadata["deletionTimestamp"] = "2026-11-23T00:00:00Z"
    spec = {"agentRef": {"name": "a"}, "userMessage": "hi", "cancel": cancel}
    return Task.model_validate({"metadata": metadata, "spec": spec, "status": status})


WAITING: dict[str, Any] = {"phase": "SendContextWindowToLLM", "turn": 1}


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        (build_task(**WAITING), True),
        (build_task(phase="SendContextWindowToLLM", turn=2), False),
        (build_task(phase="ToolCallsPending", turn=1), False),
        (build_task(phase="FinalAnswer", turn=1), False),
        (build_task(turn=0), True),
        (build_task(phase="Pending", turn=0), True),
        (build_task(cancel=True), False),
        (build_task(uid="another", **WAITING), False),
        (build_task(cancel=True, **WAITING), False),
        (build_task(deleting=True, **WAITING), False),
        (NotFoundError("gone"), False),
        (ForbiddenError("may not"), True),
    ],
)
async def test_an_answer_is_wanted_while_the_task_waits_for_it(
    task: Task | Exception, wanted: bool, build_delivery: Callable[..., Delivery[LLMRequest]]
) -> None:
    world = World(task)
    assert await TaskProbe(world, world).is_wanted(build_delivery().message) is wanted


async def test_a_result_on_its_way_is_enough(build_delivery: Callable[..., Delivery[LLMRequest]]) -> None:
    world = World(build_task(**WAITING), has_result=True)
    assert await TaskProbe(world, world).is_wanted(build_delivery().message) is False


async def test_nobody_guesses_while_the_api_server_is_away(
    build_delivery: Callable[..., Delivery[LLMRequest]],
) -> None:
    world = World(UnavailableError("down"))
    with pytest.raises(UnavailableError):
        await TaskProbe(world, world).is_wanted(build_delivery().message)


@pytest.mark.parametrize(
    ("phases", "wanted"),
    [
        (("Succeeded", "Failed"), True),
        (("Succeeded", "Running"), False),
        (("Succeeded", None), True),
    ],
    ids=["both have ended", "one runs", "one was refused"],
)
async def test_a_turn_that_is_not_written_yet_is_wanted_once_its_tool_results_are_there(
    phases: tuple[str | None, ...], wanted: bool, build_delivery: Callable[..., Delivery[LLMRequest]]
) -> None:
    calls = [{"id": f"call_{i}", "function": {"name": "t", "arguments": "{}"}} for i in range(2)]
    window = [{"role": "assistant", "content": "", "toolCalls": calls}]
    task = build_task(phase="ToolCallsPending", turn=0, contextWindow=window)
    children = {
        name: build_call(name, task=task, status={"phase": phase})
        for name, phase in zip(child_names(task, 0, 2), phases, strict=True)
        if phase is not None
    }
    world = World(task, children)
    assert await TaskProbe(world, world).is_wanted(build_delivery().message) is wanted
