"""Every bound that a user can set ends what it bounds, and says so where its user looks."""

from __future__ import annotations

import json
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.scripts import calls, in_turns
from tests.e2e.support.tables import read_events
from tests.e2e.support.workspace import UNTIL_OPEN, Workspace, reason_of, tool_messages

from kubechain_cli.scripted_llm import Reply
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

LONG_MS = 60_000
SOON = 15.0
TTL = 4
DEADLINE = "The Task was active longer than its deadline of 4 s"


def order(name: str, *, parallel: int = 1, ms: int = LONG_MS) -> str:
    return json.dumps({"task": name, "turns": 1, "parallel": parallel, "ms": ms, "llm_ms": 0})


def assert_event(workspace: Workspace, name: str, reason: str, words: str) -> None:
    def told() -> bool:
        events = read_events(workspace.kubectl("describe", "task", name))
        return any((event.type, event.reason) == ("Warning", reason) and words in event.message for event in events)

    eventually(told, SOON, what=f"a warning {reason} about Task {name}")


def assert_deadline_exceeded(workspace: Workspace, name: str) -> None:
    task = workspace.kubectl.finish(name, "Failed")
    assert (task["status"]["phase"], reason_of(task)) == ("Failed", "DeadlineExceeded")
    assert task["status"]["statusDetail"] == task["status"]["error"] == DEADLINE
    assert_event(workspace, name, "DeadlineExceeded", DEADLINE)


def test_max_turns_ends_a_model_that_never_comes_to_an_end(workspace: Workspace) -> None:
    llm = workspace.serve_llm(in_turns(calls(("nobody__nothing", {}))))
    workspace.apply_agent(llm)
    workspace.kubectl.apply(manifests.task("endless", "go", maxTurns=3))
    task = workspace.kubectl.finish("endless", "Failed")
    sentence = "The Task reached its limit of 3 turns (maxTurns) without a final answer"
    assert (reason_of(task), task["status"]["error"]) == ("MaxTurnsExceeded", sentence)
    assert len(llm.requests) == 3
    assert_event(workspace, "endless", "MaxTurnsExceeded", sentence)


def test_the_deadline_ends_a_task_whose_llm_hangs(workspace: Workspace) -> None:
    llm = workspace.hang_llm()
    workspace.apply_agent(llm)
    workspace.kubectl.apply(manifests.task("hanging", "hello", activeDeadlineSeconds=4))
    assert_deadline_exceeded(workspace, "hanging")
    eventually(lambda: llm.hung_up == llm.asked == 1, SOON, what="the end of the connection to the LLM")


def test_the_deadline_ends_a_task_whose_provider_keeps_failing(workspace: Workspace) -> None:
    llm = workspace.serve_llm(in_turns(Reply(status=503, error="overloaded")))
    workspace.apply_agent(llm)
    workspace.kubectl.apply(manifests.task("retrying", "hello", activeDeadlineSeconds=4))
    assert_deadline_exceeded(workspace, "retrying")


def test_the_deadline_interrupts_a_tool(workspace: Workspace, tmp_path: Path) -> None:
    log = workspace.apply_counting_agent(tmp_path)
    workspace.kubectl.apply(manifests.task("busy", order("busy"), activeDeadlineSeconds=4))
    assert_deadline_exceeded(workspace, "busy")
    eventually(lambda: log.of("interrupted") == [("busy", 0)], SOON, what="the tool's interruption")


def test_the_deadline_ends_a_task_that_waits_for_its_agent(workspace: Workspace) -> None:
    workspace.kubectl.apply(manifests.task("alone", "hello", activeDeadlineSeconds=4))
    assert_deadline_exceeded(workspace, "alone")


def test_the_deadline_holds_across_a_restart_of_the_controller(workspace: Workspace) -> None:
    llm = workspace.hang_llm()
    workspace.apply_agent(llm)
    workspace.kubectl.apply(manifests.task("survivor", "hello", activeDeadlineSeconds=4))
    eventually(lambda: llm.asked == 1, SOON, what="the request at the LLM")
    kill_task_controller(workspace)
    assert_deadline_exceeded(workspace, "survivor")
    eventually(lambda: llm.hung_up == llm.asked, SOON, what="the end of the connection to the LLM")
    assert llm.asked == 1


def kill_task_controller(workspace: Workspace) -> None:
    pid = int(workspace.cluster.process("task-controller")["pid"])
    os.kill(pid, signal.SIGKILL)
    workspace.cluster.wait_restarted("task-controller", pid)


@pytest.mark.parametrize("controller", ["up", "down"])
def test_a_finished_task_goes_after_its_time_with_its_calls(
    workspace: Workspace, tmp_path: Path, controller: str
) -> None:
    """Down means that its time comes while no controller is there."""
    workspace.apply_counting_agent(tmp_path)
    workspace.kubectl.apply(manifests.task("brief", order("brief", ms=0), ttlSecondsAfterFinished=TTL))
    task = workspace.kubectl.finish("brief")
    assert task["status"]["phase"] == "FinalAnswer"
    if controller == "down":
        os.kill(int(workspace.cluster.process("task-controller")["pid"]), signal.SIGSTOP)
        expired = datetime.fromisoformat(task["status"]["completionTime"]) + timedelta(seconds=TTL + 0.5)
        try:
            eventually(lambda: datetime.now(UTC) > expired, TTL + SOON, what="the Task's time")
            assert len(workspace.kubectl.list("task")) == 1
        finally:
            kill_task_controller(workspace)
    eventually(lambda: workspace.kubectl.list("task") == [], 15.0, what="the end of the Task")
    eventually(lambda: workspace.kubectl.list("taskruntoolcall") == [], 15.0, what="the end of its calls")


def test_a_tool_that_takes_too_long_is_interrupted_and_the_llm_reads_it(workspace: Workspace, tmp_path: Path) -> None:
    log = workspace.apply_counting_agent(tmp_path, requestTimeoutSeconds=1)
    task = workspace.run_task("slow", order("slow"))
    (message,) = tool_messages(task)
    assert "did not answer within 1 seconds (spec.requestTimeoutSeconds)" in message
    (call,) = workspace.calls_of("slow")
    assert (call["status"]["phase"], call["status"]["reason"]) == ("Failed", "Timeout")
    eventually(lambda: len(log.of("interrupted")) == 1, SOON, what="the tool's interruption")


def test_no_more_calls_run_at_once_than_a_server_allows(workspace: Workspace, tmp_path: Path) -> None:
    log = workspace.apply_counting_agent(tmp_path, maxConcurrency=2)
    task = workspace.run_task("wide", order("wide", parallel=6, ms=150))
    assert len(tool_messages(task)) == 6
    assert log.highest() == 2


def test_editing_the_limit_cuts_no_call_and_holds_for_the_next(workspace: Workspace, tmp_path: Path) -> None:
    log = workspace.apply_counting_agent(tmp_path, maxConcurrency=1)
    workspace.kubectl.apply(manifests.task("edited", order("edited", parallel=3, ms=UNTIL_OPEN)))
    eventually(lambda: len(log.of("start")) == 1, SOON, what="the first call")
    workspace.kubectl("patch", "mcpserver", "counting", "--type=merge", "-p", '{"spec": {"maxConcurrency": 3}}')
    eventually(lambda: len(log.of("start")) == 3, SOON, what="the others beside it")
    assert log.of("end") == []
    log.open()
    workspace.kubectl.finish("edited")
    assert len(log.of("end")) == 3
    assert log.of("interrupted") == []
