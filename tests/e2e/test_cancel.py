"""Taking work back reaches whoever is at it: the provider's connection is closed, the tool is interrupted.

The witnesses are not the product's: the LLM's connections and the MCP server's own log.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.tables import read_events
from tests.e2e.support.workspace import Workspace, reason_of, tool_messages

from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

LONG_MS = 60_000
SOON = 15.0
CANCEL = json.dumps({"spec": {"cancel": True}})


def order(name: str, *, parallel: int = 1, ms: int = LONG_MS, turns: int = 1) -> str:
    return json.dumps({"task": name, "turns": turns, "parallel": parallel, "ms": ms, "llm_ms": 0})


def cancel(workspace: Workspace, kind: str, name: str) -> None:
    workspace.kubectl("patch", kind, name, "--type=merge", "-p", CANCEL)


def assert_event(workspace: Workspace, kind: str, name: str, reason: str, words: str) -> None:
    def told() -> bool:
        events = read_events(workspace.kubectl("describe", kind, name))
        return any(event.reason == reason and words in event.message for event in events)

    eventually(told, SOON, what=f"an event {reason} about {kind} {name}")


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_the_request_to_the_provider_ends_with_its_task(workspace: Workspace, how: str) -> None:
    llm = workspace.hang_llm()
    workspace.apply_agent(llm)
    workspace.kubectl.apply(manifests.task("hanging", "hello"))
    eventually(lambda: llm.asked == 1, SOON, what="the request at the LLM")
    if how == "delete":
        workspace.kubectl("delete", "task", "hanging")
    else:
        cancel(workspace, "task", "hanging")
        task = workspace.kubectl.finish("hanging", "Failed")
        assert (task["status"]["phase"], reason_of(task)) == ("Failed", "Cancelled")
        assert task["status"]["statusDetail"] == "The Task was cancelled"
        assert_event(workspace, "task", "hanging", "TaskCancelled", "The Task was cancelled")
    eventually(lambda: llm.hung_up == 1, SOON, what="the end of the connection to the LLM")
    assert llm.asked == 1


@pytest.mark.parametrize("lost", ["Fail", "Retry"])
def test_cancelling_interrupts_the_tool_and_what_is_queued_never_starts(
    workspace: Workspace, tmp_path: Path, lost: str
) -> None:
    log = workspace.apply_counting_agent(tmp_path, maxConcurrency=1, onLostExecution=lost)
    workspace.kubectl.apply(manifests.task("busy", order("busy", parallel=6)))
    eventually(lambda: len(log.of("start")) == 1, SOON, what="the first call at the tool")
    cancel(workspace, "task", "busy")
    task = workspace.kubectl.finish("busy", "Failed")
    assert reason_of(task) == "Cancelled"
    eventually(lambda: log.of("interrupted") == log.of("start"), SOON, what="the tool's interruption")
    for call in workspace.calls_of("busy"):
        workspace.kubectl.wait(f"taskruntoolcall/{call['metadata']['name']}", "jsonpath={.status.phase}=Failed")
    ended = Counter((call["status"]["reason"], call["status"]["error"]) for call in workspace.calls_of("busy"))
    assert ended == {
        (
            "Cancelled",
            "The call was cancelled; it had been started, or may have been: whether it took effect is unknown",
        ): 1,
        ("Cancelled", "The call was cancelled; it was not started"): 5,
    }
    assert len(log.of("start")) == 1
    assert log.of("end") == []


def test_one_call_is_cancelled_and_its_task_goes_on(workspace: Workspace, tmp_path: Path) -> None:
    log = workspace.apply_counting_agent(tmp_path)
    workspace.kubectl.apply(manifests.task("going-on", order("going-on")))
    eventually(lambda: len(log.of("start")) == 1, SOON, what="the call at the tool")
    (call,) = workspace.calls_of("going-on")
    cancel(workspace, "taskruntoolcall", call["metadata"]["name"])
    task = workspace.kubectl.finish("going-on")
    sentence = "The call was cancelled; it had been started, or may have been: whether it took effect is unknown"
    assert tool_messages(task) == [f"Error: {sentence}"]
    assert task["status"]["output"] == "done after 1 turns"
    eventually(lambda: len(log.of("interrupted")) == 1, SOON, what="the tool's interruption")
    assert_event(workspace, "taskruntoolcall", call["metadata"]["name"], "Cancelled", sentence)
    undone = workspace.kubectl.try_run(
        "patch", "taskruntoolcall", call["metadata"]["name"], "--type=merge", "-p", '{"spec": {"cancel": false}}'
    )
    assert "a cancelled call stays cancelled" in undone.stderr


def test_deleting_a_task_interrupts_its_tool(workspace: Workspace, tmp_path: Path) -> None:
    log = workspace.apply_counting_agent(tmp_path)
    workspace.kubectl.apply(manifests.task("gone", order("gone")))
    eventually(lambda: len(log.of("start")) == 1, SOON, what="the call at the tool")
    workspace.kubectl("delete", "task", "gone")
    eventually(lambda: len(log.of("interrupted")) == 1, 15.0, what="the tool's interruption")


def test_a_call_that_waits_for_approval_ends_and_a_late_decision_has_no_effect(
    workspace: Workspace, tmp_path: Path
) -> None:
    workspace.apply_inbox("approval-channel")
    log = workspace.apply_counting_agent(tmp_path, approvalContactChannel={"name": "approval-channel"})
    workspace.kubectl.apply(manifests.task("asking", order("asking", ms=0)))

    def waiting() -> str:
        calls = [c for c in workspace.calls_of("asking") if c["status"].get("status") == "AwaitingHumanApproval"]
        return calls[0]["metadata"]["name"] if calls else ""

    name = eventually(waiting, SOON, what="a call that waits for approval")
    cancel(workspace, "task", "asking")
    workspace.kubectl.wait(f"taskruntoolcall/{name}", "jsonpath={.status.phase}=Failed")
    late = workspace.kubectl.try_run(
        "patch", "taskruntoolcall", name, "--type=merge", "-p", json.dumps({"spec": {"decision": {"approved": True}}})
    )
    assert "a decision comes too late" in late.stderr
    call = workspace.kubectl.get("taskruntoolcall", name)
    assert (call["status"]["phase"], call["status"]["error"]) == (
        "Failed",
        "The call was cancelled; it was not started",
    )
    assert reason_of(workspace.kubectl.finish("asking", "Failed")) == "Cancelled"
    assert log.of("start") == []


def test_a_task_that_waits_for_its_agent_is_cancelled(workspace: Workspace) -> None:
    workspace.kubectl.apply(manifests.task("alone", "hello"))
    workspace.kubectl.wait("task/alone", "jsonpath={.status.phase}=Pending")
    cancel(workspace, "task", "alone")
    assert reason_of(workspace.kubectl.finish("alone", "Failed")) == "Cancelled"


def test_a_call_made_for_a_finished_task_never_runs(workspace: Workspace, tmp_path: Path) -> None:
    """As a controller does that was paused in between and does not know that another one finished the Task."""
    log = workspace.apply_counting_agent(tmp_path)
    workspace.run_task("over", order("over", ms=0))
    (old,) = workspace.calls_of("over")
    metadata = old["metadata"]
    late = {
        "apiVersion": old["apiVersion"],
        "kind": old["kind"],
        "metadata": {
            "name": "over-late",
            "labels": metadata["labels"],
            "ownerReferences": metadata["ownerReferences"],
        },
        "spec": {**old["spec"], "requestedAt": "2026-11-24T00:00:00.000000Z"},
    }
    workspace.kubectl.apply(late)
    workspace.kubectl.wait("taskruntoolcall/over-late", "jsonpath={.status.phase}=Failed")
    call = workspace.kubectl.get("taskruntoolcall", "over-late")
    assert call["status"]["reason"] == "Cancelled"
    # Whichever controller comes first: the Task's own word, or what the call's controller found when it asked.
    assert call["status"]["error"].startswith(("The call was cancelled", "The Task of this call has ended"))
    assert len(log.of("start")) == 1
