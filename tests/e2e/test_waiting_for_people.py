"""Calls that wait for a person, answered with kubectl: approvals, questions, deadlines, and channels that are missing.

What reaches a person by mail and the like is human-bridge's concern, and is tested with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.failures import assert_told
from tests.e2e.support.shown import Shown
from tests.e2e.support.tables import assert_lines_in_order, read_events
from tests.e2e.support.workspace import ToolLog, Workspace, tool_messages

from kubechain_common.api.names import external_call_id
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

SOON = 10.0
CHANNEL = "approval-channel"
BROKEN_EMAIL = {
    "type": "email",
    "email": {"address": "alice@example.com"},
    "apiKeyFrom": {"secretKeyRef": {"name": "nowhere", "key": "none"}},
}
COMPONENT = "taskruntoolcall-controller"


def order(name: str) -> str:
    return json.dumps({"task": name, "turns": 1, "parallel": 1, "ms": 0, "llm_ms": 0})


def patch(workspace: Workspace, call: str, **spec: Any) -> None:
    workspace.kubectl("patch", "taskruntoolcall", call, "--type=merge", "-p", json.dumps({"spec": spec}))


def wait_until(workspace: Workspace, call: str, status: str) -> dict[str, Any]:
    workspace.kubectl.wait(f"taskruntoolcall/{call}", f"jsonpath={{.status.status}}={status}", SOON)
    return workspace.kubectl.get("taskruntoolcall", call)


def waiting_call(workspace: Workspace, task: str) -> str:
    """The name of the Task's only call, once it waits for approval."""

    def find() -> str:
        calls = [c for c in workspace.calls_of(task) if c["status"].get("status") == "AwaitingHumanApproval"]
        return str(calls[0]["metadata"]["name"]) if calls else ""

    return eventually(find, SOON, what=f"a call of {task} that waits for approval")


def ask(workspace: Workspace, task: str) -> str:
    workspace.kubectl.apply(manifests.task(task, order(task)))
    return waiting_call(workspace, task)


def wait_told(workspace: Workspace, call: str, event: tuple[str, str, str, str]) -> None:
    """Events are written off the hot path."""

    def is_told() -> bool:
        return event in [e.words for e in read_events(workspace.kubectl("describe", "taskruntoolcall", call))]

    eventually(is_told, SOON, what=f"the event {event} about {call}")


def answered(call: dict[str, Any]) -> tuple[str, str]:
    return next((c["reason"], c["message"]) for c in call["status"]["conditions"] if c["type"] == "Answered")


@pytest.fixture
def log(workspace: Workspace, tmp_path: Path) -> ToolLog:
    """Of a server whose every call needs approval."""
    workspace.apply_inbox(CHANNEL)
    return workspace.apply_counting_agent(tmp_path, approvalContactChannel={"name": CHANNEL})


def test_a_waiting_call_shows_what_the_tutorial_shows_and_runs_once_it_is_approved(
    workspace: Workspace, log: ToolLog
) -> None:
    name = ask(workspace, "guarded")
    task_uid = workspace.kubectl.get("task", "guarded")["metadata"]["uid"]
    call_uid = workspace.kubectl.get("taskruntoolcall", name)["metadata"]["uid"]
    described = workspace.kubectl("describe", "taskruntoolcall", name)
    assert_lines_in_order(
        described,
        f"""
        Name: {name}
        kubechain.humanlayer.dev/taskruntoolcall=guarded
        Kind: TaskRunToolCall
        Owner References:
        Kind: Task
        Name: guarded
        UID: {task_uid}
        Spec:
        Status:
        External Call ID: {external_call_id(workspace.namespace, name, call_uid)}
        Phase: Pending
        Start Time: …
        Status: AwaitingHumanApproval
        Status Detail: Waiting for human approval via contact channel {CHANNEL}
        """,
    )
    message = f"Tool execution requires approval via contact channel {CHANNEL}"
    wait_told(workspace, name, ("Normal", "AwaitingHumanApproval", COMPONENT, message))
    workspace.kubectl.wait(f"taskruntoolcall/{name}", "condition=HumanAsked")
    (asked,) = workspace.kubectl.get("taskruntoolcall", name)["status"]["conditions"]
    wait_told(workspace, name, ("Normal", asked["reason"], COMPONENT, asked["message"]))
    assert log.of("start") == []
    workspace.kill("toolcall-controller")
    patch(workspace, name, decision={"approved": True, "by": "alice"})
    task = workspace.kubectl.finish("guarded")
    assert tool_messages(task) == ["counted guarded 1 0"]
    assert log.of("start") == [("guarded", 0)]
    call = workspace.kubectl.get("taskruntoolcall", name)
    assert answered(call) == ("Approved", "Approved by alice via kubectl")
    wait_told(workspace, name, ("Normal", "Approved", COMPONENT, "Ready to execute approved tool"))


@pytest.mark.failure("approval-rejected")
def test_a_rejected_call_never_runs_and_the_model_reads_why(workspace: Workspace, log: ToolLog) -> None:
    name = ask(workspace, "refused")
    patch(workspace, name, decision={"approved": False, "comment": "not on a Friday"})
    task = workspace.kubectl.finish("refused")
    assert tool_messages(task) == ["not on a Friday"]
    assert log.of("start") == []
    call = workspace.kubectl.get("taskruntoolcall", name)
    assert (call["status"]["phase"], call["status"]["statusDetail"]) == ("ToolCallRejected", "Tool execution rejected")
    assert_told("approval-rejected", Shown(workspace.kubectl), name)


@pytest.mark.failure("approval-edited-badly")
def test_edited_arguments_are_what_runs(workspace: Workspace, log: ToolLog) -> None:
    edited = {"task": "other", "turn": 7, "index": 9, "ms": 0}
    name = ask(workspace, "edited")
    patch(workspace, name, decision={"approved": True, "arguments": json.dumps(edited)})
    assert tool_messages(workspace.kubectl.finish("edited")) == ["counted other 7 9"]
    assert log.of("start") == [("other", 9)]
    assert json.loads(workspace.kubectl.get("taskruntoolcall", name)["spec"]["arguments"])["task"] == "edited"
    bad = ask(workspace, "misedited")
    patch(workspace, bad, decision={"approved": True, "arguments": '{"task": 1}', "by": "alice"})
    (read,) = tool_messages(workspace.kubectl.finish("misedited"))
    assert read.startswith(
        "Error: The arguments are not those of the model but were edited (Approved by alice via kubectl): "
        'The arguments do not fit the tool "count": "task" must be of type string, not 1;'
    )
    assert log.of("start") == [("other", 9)]
    assert_told("approval-edited-badly", Shown(workspace.kubectl), bad)


@pytest.mark.failure("approval-timeout")
@pytest.mark.parametrize(("on_timeout", "runs"), [("Reject", 0), ("Approve", 1)])
def test_the_deadline_decides_where_nobody_does(
    workspace: Workspace, tmp_path: Path, on_timeout: str, runs: int
) -> None:
    workspace.apply_inbox(CHANNEL, timeoutSeconds=4, onTimeout=on_timeout)
    log = workspace.apply_counting_agent(tmp_path, approvalContactChannel={"name": CHANNEL})
    name = ask(workspace, "late")
    workspace.kill("toolcall-controller")
    task = workspace.kubectl.finish("late")
    call = workspace.kubectl.get("taskruntoolcall", name)
    decision = call["spec"]["decision"]
    assert decision.pop("at")
    assert decision == {
        "approved": bool(runs),
        "comment": "Nobody answered within 4 seconds",
        "by": "deadline",
        "via": "deadline",
    }
    assert len(log.of("start")) == runs
    assert tool_messages(task) == ["counted late 1 0" if runs else "Nobody answered within 4 seconds"]
    if not runs:
        assert_told("approval-timeout", Shown(workspace.kubectl), name)


def test_only_what_the_policy_names_waits(workspace: Workspace, tmp_path: Path) -> None:
    workspace.apply_inbox(CHANNEL)
    log = workspace.apply_counting_agent(
        tmp_path, approvalContactChannel={"name": CHANNEL}, approval={"tools": ["another"]}
    )
    assert tool_messages(workspace.run_task("free", order("free"))) == ["counted free 1 0"]
    assert log.of("start") == [("free", 0)]


@pytest.mark.failure("channel-missing", "channel-not-ready")
def test_a_server_waits_for_its_channel_and_so_do_its_agents(workspace: Workspace, tmp_path: Path) -> None:
    log = ToolLog(tmp_path / "counting.jsonl")
    server = manifests.own_server(
        "counting", "counting_server.py", str(log.path), approvalContactChannel={"name": CHANNEL}
    )
    workspace.kubectl.apply(server)
    target, detail = "mcpserver/counting", "jsonpath={.status.statusDetail}"
    workspace.kubectl.wait(target, f'{detail}=ContactChannel "{CHANNEL}" not found')
    assert_told("channel-missing", Shown(workspace.kubectl), "counting")
    workspace.kubectl.apply(manifests.build("ContactChannel", CHANNEL, BROKEN_EMAIL))
    workspace.kubectl.wait(target, f'{detail}=ContactChannel "{CHANNEL}" is not ready')
    assert_told("channel-not-ready", Shown(workspace.kubectl), "counting")
    workspace.kubectl("delete", "contactchannel", CHANNEL)
    workspace.apply_inbox(CHANNEL)
    workspace.kubectl.wait(target)
    assert workspace.kubectl.get("mcpserver", "counting")["status"]["connected"] is True
    workspace.kubectl("delete", "contactchannel", CHANNEL)
    workspace.kubectl.wait(target, f'{detail}=ContactChannel "{CHANNEL}" not found')
    status = workspace.kubectl.get("mcpserver", "counting")["status"]
    assert (status["connected"], status["status"]) == (False, "Pending")


def test_a_call_whose_channel_is_gone_can_be_answered(workspace: Workspace, log: ToolLog) -> None:
    name = ask(workspace, "lost")
    workspace.kubectl("delete", "contactchannel", CHANNEL)
    patch(workspace, name, decision={"approved": True})
    call = wait_until(workspace, name, "Succeeded")  # its Task goes on once the Agent has its tools again
    assert call["status"]["result"] == "counted lost 1 0"
    assert log.of("start") == [("lost", 0)]


def question(name: str, arguments: str, channel: str = "boss") -> dict[str, Any]:
    """A call as task-controller makes it for a tool that is a person."""
    spec = {
        "toolCallId": "call_1",
        "taskRunRef": {"name": "nobody"},
        "toolRef": {"name": f"{channel}__human_contact_inbox"},
        "toolType": "HumanContact",
        "target": {"name": channel},
        "arguments": arguments,
    }
    return manifests.build("TaskRunToolCall", name, spec)


@pytest.mark.failure("channel-gone")
def test_a_question_waits_for_its_channel_and_for_its_answer(workspace: Workspace) -> None:
    workspace.kubectl.apply(question("asking", '{"message": "May I?"}'))
    call = wait_until(workspace, "asking", "AwaitingHumanInput")
    assert call["status"]["phase"] == "Pending"
    assert call["status"]["statusDetail"].startswith(
        'Waiting for human input via contact channel boss. ContactChannel "boss" not found'
    )
    workspace.apply_inbox("boss")
    workspace.kubectl.wait(
        "taskruntoolcall/asking", "jsonpath={.status.statusDetail}=Waiting for human input via contact channel boss"
    )
    patch(workspace, "asking", response={"message": "Yes.", "by": "bob"})
    call = wait_until(workspace, "asking", "Succeeded")
    assert (call["status"]["result"], call["status"]["statusDetail"]) == (
        "Yes.",
        "Human contact completed successfully",
    )
    assert answered(call) == ("Answered", "Answered by bob via kubectl")
    message = "Human input requested via contact channel boss"
    wait_told(workspace, "asking", ("Normal", "AwaitingHumanContact", COMPONENT, message))
    assert_told("channel-gone", Shown(workspace.kubectl), "asking")
    done = "Human contact completed successfully"
    wait_told(workspace, "asking", ("Normal", "HumanContactCompleted", COMPONENT, done))


@pytest.mark.failure("channel-lost")
def test_a_channel_that_is_deleted_in_mid_wait_is_told_and_the_question_answered_all_the_same(
    workspace: Workspace,
) -> None:
    workspace.apply_inbox("boss")
    workspace.kubectl.apply(question("left-alone", '{"message": "May I?"}'))
    workspace.kubectl.wait("taskruntoolcall/left-alone", "condition=HumanAsked", SOON)
    workspace.kubectl("delete", "contactchannel", "boss")

    def is_told() -> bool:
        detail: str = workspace.kubectl.get("taskruntoolcall", "left-alone")["status"]["statusDetail"]
        return detail.endswith("so answer with kubectl, kubechain or the page")

    eventually(is_told, SOON, what="the loss of the channel to be told")
    assert_told("channel-lost", Shown(workspace.kubectl), "left-alone")
    patch(workspace, "left-alone", response={"message": "Yes.", "by": "bob"})
    assert wait_until(workspace, "left-alone", "Succeeded")["status"]["result"] == "Yes."


@pytest.mark.failure("question-without-message", "question-timeout")
def test_a_question_without_a_message_or_an_answer_fails(workspace: Workspace) -> None:
    workspace.apply_inbox("boss", timeoutSeconds=1)
    workspace.kubectl.apply(question("empty", "{}"), question("unanswered", '{"message": "Hello?"}'))
    empty, unanswered = (wait_until(workspace, name, "Error") for name in ("empty", "unanswered"))
    assert (empty["status"]["phase"], empty["status"]["reason"]) == ("Failed", "InvalidArguments")
    assert (unanswered["status"]["phase"], unanswered["status"]["reason"]) == ("Failed", "HumanTimeout")
    assert unanswered["status"]["error"] == "Nobody answered within 1 second via contact channel boss"
    assert_told("question-without-message", Shown(workspace.kubectl), "empty")
    assert_told("question-timeout", Shown(workspace.kubectl), "unanswered")


def test_a_question_is_cancelled(workspace: Workspace) -> None:
    workspace.apply_inbox("boss")
    workspace.kubectl.apply(question("taken-back", '{"message": "Hello?"}'))
    wait_until(workspace, "taken-back", "AwaitingHumanInput")
    patch(workspace, "taken-back", cancel=True)
    call = wait_until(workspace, "taken-back", "Error")
    assert (call["status"]["reason"], call["status"]["error"]) == (
        "Cancelled",
        "The call was cancelled; nobody had answered",
    )
