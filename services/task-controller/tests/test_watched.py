"""What is kept of a Task's calls. The informers are fed as a write of our own feeds them."""

from __future__ import annotations

from typing import Any, cast

import pytest

from kubechain_common.api.v1alpha1 import Agent, Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.conversation import TokenUsage
from kubechain_common.kube.client import KubeClient
from kubechain_task_controller.core.spent import Spent
from kubechain_task_controller.watched import Watched, strip_finished, strip_raw

CALL = ("ns", "task-1")


def build_task(phase: str, *, version: int = 1, uid: str = "task-uid") -> Task:
    return Task.model_validate(
        {
            "metadata": {"namespace": "ns", "name": "task", "uid": uid, "resourceVersion": str(version)},
            "spec": {"agentRef": {"name": "agent"}, "userMessage": "hello"},
            "status": {"phase": phase},
        }
    )


def build_call(phase: str, *, version: int = 1, result: str = "the answer") -> TaskRunToolCall:
    owner: dict[str, Any] = {"apiVersion": "v", "kind": "Task", "name": "task", "uid": "task-uid", "controller": True}
    metadata = {"namespace": "ns", "name": CALL[1], "uid": "call-uid", "resourceVersion": str(version)}
    return TaskRunToolCall.model_validate(
        {
            "metadata": {**metadata, "ownerReferences": [owner]},
            "spec": {"toolCallId": "1", "taskRunRef": {"name": "task"}, "toolRef": {"name": "t"}, "arguments": "{}"},
            "status": {"phase": phase, "result": result},
        }
    )


def build_watched() -> Watched:
    return Watched.build(cast("KubeClient", None), "")


def kept_result(watched: Watched) -> str:
    call = watched.calls.get(*CALL)
    assert call is not None
    assert call.finished
    return call.status.result


def test_a_result_is_kept_until_its_task_has_finished() -> None:
    watched = build_watched()
    watched.tasks.observe(build_task("ToolCallsPending"))
    watched.calls.observe(build_call("Succeeded"))
    assert kept_result(watched) == "the answer"
    watched.tasks.observe(build_task("FinalAnswer", version=2))
    assert kept_result(watched) == ""


def test_a_call_that_is_heard_of_after_the_end_of_its_task_is_kept_without_its_result() -> None:
    watched = build_watched()
    watched.tasks.observe(build_task("FinalAnswer"))
    watched.calls.observe(build_call("Succeeded"))
    assert kept_result(watched) == ""


def test_the_result_of_another_task_of_that_name_is_kept() -> None:
    watched = build_watched()
    watched.tasks.observe(build_task("FinalAnswer", uid="an earlier one"))
    watched.calls.observe(build_call("Succeeded"))
    assert kept_result(watched) == "the answer"


def test_a_thinned_out_call_is_still_found_and_still_changes() -> None:
    watched = build_watched()
    watched.tasks.observe(build_task("FinalAnswer"))
    watched.calls.observe(build_call("Running", result=""))
    watched.calls.observe(build_call("Succeeded", version=2))
    assert kept_result(watched) == ""
    assert [call.key for call in watched.calls.by_owner("task-uid")] == [CALL]


def test_a_call_that_is_heard_of_after_the_end_of_its_task_is_found_until_it_ends() -> None:
    watched = build_watched()
    finished = build_task("Failed")
    watched.tasks.observe(finished)
    assert not watched.calls_of(finished)
    watched.calls.observe(build_call("Running", result=""))
    assert list(watched.calls_of(finished)) == [CALL[1]]
    assert not watched.calls_of(build_task("Failed", uid="an earlier one"))
    watched.calls.observe(build_call("Failed", version=2))
    assert not watched.calls_of(finished)


def test_a_new_leader_looks_at_unfinished_tasks_and_at_what_finished_ones_leave_to_do() -> None:
    watched = build_watched()
    for name, phase, spec in (
        ("new", None, {}),
        ("kept", "FinalAnswer", {}),
        ("brief", "FinalAnswer", {"ttlSecondsAfterFinished": 60}),
        ("task", "Failed", {}),
        ("waiting", "ToolCallsPending", {}),
    ):
        raw = {
            "metadata": {"namespace": "ns", "name": name, "uid": f"{name}-uid", "resourceVersion": "1"},
            "spec": {"agentRef": {"name": "agent"}, "userMessage": "hello", **spec},
            "status": {"phase": phase},
        }
        watched.tasks.observe(Task.model_validate(raw))
    watched.calls.observe(build_call("Running", result=""))
    assert [name for _, name in watched.tasks_to_look_at()] == ["new", "waiting", "brief", "task"]
    watched.calls.observe(build_call("Failed", version=2))
    assert [name for _, name in watched.tasks_to_look_at()] == ["new", "waiting", "brief"]


@pytest.mark.parametrize("phase", [None, "Pending", "ToolCallsPending", "FinalAnswer", "Failed"])
def test_what_is_not_validated_of_a_task_would_not_have_been_kept(phase: str | None) -> None:
    raw: dict[str, Any] = {
        "metadata": {"namespace": "ns", "name": "task", "uid": "u", "resourceVersion": "1"},
        "spec": {"agentRef": {"name": "agent"}, "userMessage": "hello"},
        "status": {"phase": phase, "output": "o", "contextWindow": [{"role": "user", "content": "hello"}]},
    }
    whole = Task.model_validate(raw)
    strip_raw(raw)
    assert strip_finished(Task.model_validate(raw)) == strip_finished(whole)
    assert ("contextWindow" in raw["status"]) is not whole.finished


def test_who_goes_on_from_a_task_is_woken_when_it_comes_and_ends_and_goes() -> None:
    watched = build_watched()
    woken: list[tuple[str, str]] = []
    waiting = {
        "metadata": {"namespace": "ns", "name": "next", "uid": "next-uid", "resourceVersion": "1"},
        "spec": {"agentRef": {"name": "agent"}, "contextWindowFrom": {"taskRef": {"name": "task"}}},
    }
    watched.tasks.observe(Task.model_validate(waiting))
    watched.wake_tasks(woken.append)

    def wakes() -> bool:
        told = ("ns", "next") in woken
        woken.clear()
        return told

    assert wakes()
    watched.tasks.observe(build_task("Pending"))
    assert wakes(), "it waits for the Task to finish now, no longer to exist"
    watched.tasks.observe(build_task("ToolCallsPending", version=2))
    assert not wakes()
    watched.tasks.observe(build_task("FinalAnswer", version=3))
    assert wakes()
    watched.tasks._notify(watched.tasks._store.delete(("ns", "task"), 4))
    assert wakes()


def test_a_task_without_a_status_is_left_as_it_is() -> None:
    raw = {"spec": {"userMessage": "hello"}}
    strip_raw(raw)
    assert raw == {"spec": {"userMessage": "hello"}}


def build_spender(name: str, tokens: int, *, version: int = 1, phase: str = "FinalAnswer") -> Task:
    task = build_task(phase, version=version, uid=f"uid-{name}")
    task.metadata.name = name
    task.status.token_usage = TokenUsage(input_tokens=tokens, total_tokens=tokens)
    return task


def build_agent_status(version: int, **status: Any) -> Agent:
    metadata = {"namespace": "ns", "name": "agent", "uid": "a", "resourceVersion": str(version), "generation": 1}
    spec = {"llmRef": {"name": "llm"}, "system": "s"}
    return Agent.model_validate({"metadata": metadata, "spec": spec, "status": status})


def test_the_usage_of_an_agent_is_that_of_its_tasks_those_that_are_gone_included() -> None:
    watched = build_watched()
    spent, key = watched.spent_by_agent, ("ns", "agent")
    watched.tasks.observe(build_spender("one", 5))
    watched.tasks.observe(build_spender("two", 7))
    watched.tasks.observe(build_spender("two", 9, version=2))
    spent.resume(key, Spent(), Spent())
    assert spent.total(key).total == 14
    watched.tasks._notify(watched.tasks._store.delete(("ns", "one"), 3))
    assert (spent.total(key).total, spent.carried(key).total, spent.total(key).tasks) == (14, 5, 2)


def test_an_agents_usage_is_written_down_at_the_end_of_a_task_and_wakes_nobody() -> None:
    watched = build_watched()
    agents: list[tuple[str, str]] = []
    tasks: list[tuple[str, str]] = []
    usage: list[tuple[str, str]] = []
    watched.tasks.observe(build_spender("one", 5, phase="ToolCallsPending"))
    watched.agents.observe(build_agent_status(1, ready=True))
    watched.wake_for_usage(usage.append)
    assert usage == []
    watched.tasks.observe(build_spender("one", 7, version=2))
    assert usage == [("ns", "agent")]
    watched.tasks.observe(build_spender("other", 7, phase="ToolCallsPending"))
    watched.wake_agents(agents.append)
    watched.wake_tasks(tasks.append)
    agents.clear()
    tasks.clear()
    watched.agents.observe(build_agent_status(2, ready=True, usage={"tasks": 1}))
    assert (agents, tasks) == ([], [])
    watched.agents.observe(build_agent_status(3, ready=False, usage={"tasks": 2}))
    assert (agents, tasks) == ([("ns", "agent")], [("ns", "other")])
