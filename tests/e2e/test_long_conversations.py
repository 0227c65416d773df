"""Conversations of any length: the Task stays small, and the model reads every byte."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.scripts import calls, in_turns
from tests.e2e.support.tables import read_events
from tests.e2e.support.workspace import Workspace

from kubechain_cli.scripted_llm import ChatMessage, Reply, Script, ScriptedServer, ToolSpec
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

TURNS = 300
SIZE = 20_480
MAX_OBJECT = 150_000
LONG_SECONDS = 150.0
DONE = Reply("done")


def text_of(number: int, size: int) -> str:
    """What the tool of text_server.py returns."""
    line = f"this is line after line of text number {number}\n"
    return (line * (size // len(line) + 1))[:size]


def ask_texts(turns: int, size: int) -> Script:
    """One text per turn, numbered by the turns of the whole conversation, until the last user message has had its own.

    A conversation that goes on from another starts to count anew.
    """

    def script(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> Reply:
        asked = max(i for i, message in enumerate(messages) if message.role == "user")
        turn = sum(message.role == "assistant" for message in messages[asked:]) + 1
        if turn > turns:
            return Reply("x" * 9000 if "report" in messages[asked].text else f"done after {turns} turns")
        return calls(("texts__text", {"number": turn, "size": size}))

    return script


def last_messages(llm: ScriptedServer) -> list[dict[str, Any]]:
    """The conversation in the last request."""
    messages: list[dict[str, Any]] = list(llm.requests)[-1].body["messages"]
    return messages


def results_in(messages: Sequence[dict[str, Any]]) -> list[str]:
    return [message["content"] for message in messages if message["role"] == "tool"]


def with_texts(workspace: Workspace, script: Script) -> ScriptedServer:
    """The agent with the tool ``texts__text``."""
    workspace.kubectl.apply(manifests.own_server("texts", "text_server.py"))
    llm = workspace.serve_llm(script)
    workspace.apply_agent(llm, servers=["texts"])
    return llm


@contextmanager
def watched_sizes(workspace: Workspace, task: str) -> Iterator[list[int]]:
    """The sizes of the object, whenever we look while the body runs."""
    sizes: list[int] = []
    stopping = threading.Event()

    def look() -> None:
        while not stopping.wait(0.5):
            sizes.append(len(workspace.kubectl("get", "task", task, "-o", "json", "--show-managed-fields").encode()))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield sizes
    finally:
        stopping.set()
        thread.join()


@pytest.mark.timeout(LONG_SECONDS + 60)
def test_300_turns_with_long_results(workspace: Workspace) -> None:
    llm = with_texts(workspace, ask_texts(TURNS, SIZE))
    workspace.kubectl.apply(manifests.task("long", "go on", maxTurns=TURNS + 1))
    with watched_sizes(workspace, "long") as sizes:
        task = workspace.kubectl.finish("long", timeout=LONG_SECONDS)
    assert task["status"]["output"] == f"done after {TURNS} turns"
    assert len(sizes) > 5
    assert max(sizes) < MAX_OBJECT
    assert task["status"]["messageCount"] == 2 * TURNS + 3
    messages = last_messages(llm)
    assert [m["role"] for m in messages] == ["system", "user", *["assistant", "tool"] * TURNS]
    assert results_in(messages) == [text_of(number, SIZE) for number in range(1, TURNS + 1)]
    described = workspace.kubectl("describe", "task", "long")
    assert "go on" in described
    assert f"this is line after line of text number {TURNS}" in described
    assert "earlier messages" in described
    pages = workspace.kubectl.list("configmap", "-l", f"kubechain.humanlayer.dev/task-uid={task['metadata']['uid']}")
    assert pages
    assert all(page["immutable"] for page in pages)
    workspace.kubectl("delete", "task", "long")
    eventually(
        lambda: not workspace.kubectl.list("configmap", "-l", "kubechain.humanlayer.dev/task-uid"),
        30,
        what="the pages go with their Task",
    )


def test_a_restarted_gateway_reads_everything_anew(workspace: Workspace) -> None:
    llm = with_texts(workspace, ask_texts(40, 6000))
    workspace.kubectl.apply(manifests.task("reread", "go on", maxTurns=60))
    eventually(lambda: len(llm.requests) > 30, 60, what="most of the turns")
    workspace.kill("llm-gateway")
    workspace.kubectl.finish("reread", timeout=60)
    assert results_in(last_messages(llm)) == [text_of(number, 6000) for number in range(1, 41)]


def test_long_texts_and_long_arguments_reach_the_model_whole(workspace: Workspace) -> None:
    """A long question, a long answer beside a call, long arguments: each shown shortened, and read whole."""
    question, remark, note = "q" * 50_000, "r" * 20_000, "n" * 5000
    llm = with_texts(
        workspace, in_turns(calls(("texts__text", {"number": 1, "size": 10, "note": note}), text=remark), DONE)
    )
    task = workspace.run_task("whole", question)
    _, asked, answered, result = last_messages(llm)
    assert asked["content"] == question
    assert answered["content"] == remark
    assert json.loads(answered["tool_calls"][0]["function"]["arguments"])["note"] == note
    assert result["role"] == "tool"
    window = task["status"]["contextWindow"]
    assert window[1]["content"].endswith("... [50,000 bytes]")
    assert window[1]["contentFrom"]["configMapKeyRef"]["key"] == "content"
    assert window[2]["contentFrom"]["configMapKeyRef"]["key"] == "content"
    function = window[2]["toolCalls"][0]["function"]
    assert function["argumentsFrom"]["taskRunToolCallRef"]["name"] == workspace.calls_of("whole")[0]["metadata"]["name"]
    assert len(json.dumps(task["status"])) < 10_000


def test_a_result_over_the_cap_says_so_to_the_model(workspace: Workspace) -> None:
    llm = with_texts(workspace, ask_texts(1, 400_000))
    task = workspace.run_task("capped", "go on")
    (result,) = results_in(last_messages(llm))
    assert len(result.encode()) <= 256 * 1024
    assert result.startswith(text_of(1, 200_000))
    assert "of 400,000 bytes]" in result[-80:]
    assert len(json.dumps(task["status"])) < 5000


def test_a_task_goes_on_from_a_long_one_that_is_deleted_afterwards(workspace: Workspace) -> None:
    llm = with_texts(workspace, ask_texts(20, 6000))
    first = workspace.kubectl
    first.apply(manifests.task("first", "write the report", maxTurns=60))
    first.finish("first", timeout=60)
    first.apply(manifests.task("second", "and more", contextWindowFrom={"taskRef": {"name": "first"}}, maxTurns=60))
    eventually(lambda: first.get("task", "second").get("status", {}).get("turn", 0) > 1, 30)
    first("delete", "task", "first")
    second = first.finish("second", timeout=60)
    texts = [text_of(number, 6000) for number in range(1, 21)]
    messages = last_messages(llm)
    assert results_in(messages) == [*texts, *texts]
    assert [m["content"] for m in messages if m["role"] == "user"] == ["write the report", "and more"]
    assert "x" * 9000 in [m["content"] for m in messages]
    assert second["status"]["messageCount"] == len(messages) + 1


def test_a_fork_reads_the_conversation_up_to_its_turn(workspace: Workspace) -> None:
    llm = with_texts(workspace, ask_texts(20, 6000))
    workspace.kubectl.apply(manifests.task("trunk", "go on", maxTurns=60))
    workspace.kubectl.finish("trunk", timeout=60)
    before = len(llm.requests)
    workspace.kubectl.apply(
        manifests.task("fork", "another way", contextWindowFrom={"taskRef": {"name": "trunk"}, "turn": 3}, maxTurns=60)
    )
    workspace.kubectl.finish("fork", timeout=60)
    messages = list(llm.requests)[before].body["messages"]
    assert [m["role"] for m in messages] == ["system", "user", *["assistant", "tool"] * 3, "user"]
    assert results_in(messages) == [text_of(number, 6000) for number in (1, 2, 3)]


def test_a_fork_beyond_the_last_turn_fails_with_a_sentence(workspace: Workspace) -> None:
    with_texts(workspace, ask_texts(1, 10))
    workspace.run_task("short", "go on")
    workspace.kubectl.apply(
        manifests.task("beyond", "another way", contextWindowFrom={"taskRef": {"name": "short"}, "turn": 7})
    )
    task = workspace.kubectl.finish("beyond", "Failed")
    sentence = 'contextWindowFrom.turn is 7, but Task "short" ended in turn 2'
    assert task["status"]["error"] == sentence
    assert task["status"]["conditions"][0]["reason"] == "InvalidContextWindowFrom"

    def told() -> bool:
        events = read_events(workspace.kubectl("describe", "task", "beyond"))
        return any(event.reason == "ValidationFailed" and sentence in event.message for event in events)

    eventually(told, 15, what="a warning with the sentence")


def test_a_task_waits_for_its_source_and_says_so(workspace: Workspace) -> None:
    with_texts(workspace, ask_texts(1, 10))
    workspace.kubectl.apply(
        manifests.task("next", "and more", contextWindowFrom={"taskRef": {"name": "missing"}}),
    )
    workspace.kubectl.wait("task/next", 'jsonpath={.status.statusDetail}=Waiting for Task "missing" to exist')
    workspace.run_task("missing", "go on")
    workspace.kubectl.finish("next")


def test_a_given_conversation_is_gone_on_with(workspace: Workspace) -> None:
    llm = with_texts(workspace, ask_texts(1, 6000))
    given = [{"role": r, "content": f"{i} {r * 600}"} for i in range(20) for r in ("user", "assistant")]
    spec = {"agentRef": {"name": "my-assistant"}, "contextWindow": [*given, {"role": "user", "content": "now you"}]}
    workspace.kubectl.apply(manifests.build("Task", "given", spec))
    task = workspace.kubectl.finish("given")
    messages = last_messages(llm)
    assert [m["content"] for m in messages[1:42]] == [*(m["content"] for m in given), "now you"]
    assert results_in(messages) == [text_of(1, 6000)]
    assert len(json.dumps(task["status"])) < 40_000


def test_what_can_not_fit_fails_with_a_sentence(workspace: Workspace) -> None:
    """1.2 MB in 600,000 characters: the Task's spec takes it, a ConfigMap does not."""
    workspace.apply_agent(workspace.serve_llm(in_turns(DONE)))
    huge = json.dumps(manifests.task("huge", "é" * 600_000), ensure_ascii=False)
    workspace.kubectl("create", "-f", "-", input=huge)
    task = workspace.kubectl.finish("huge", "Failed")
    assert task["status"]["conditions"][0]["reason"] == "ContextWindowTooLarge"
    assert "does not fit into what Kubernetes stores: use shorter messages" in task["status"]["error"]


def test_a_lost_text_fails_the_task_and_names_the_object(workspace: Workspace) -> None:
    """A foreign object under the name of a lost one is not read in its place."""
    gate = threading.Event()

    def script(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> Reply:
        spoken = sum(message.role == "assistant" for message in messages)
        return (
            Reply(status=503, error="try again") if spoken and not gate.is_set() else ask_texts(3, 6000)(messages, ())
        )

    with_texts(workspace, script)
    workspace.kubectl.apply(manifests.task("lost", "q" * 9000))
    workspace.kubectl.wait("task/lost", "jsonpath={.status.turn}=2")
    source = workspace.kubectl.get("task", "lost")["status"]["contextWindow"][1]["contentFrom"]["configMapKeyRef"]
    workspace.kubectl("delete", "configmap", source["name"])
    workspace.kubectl("create", "configmap", source["name"], "--from-literal=content=of somebody else")
    workspace.kill("llm-gateway")
    gate.set()
    task = workspace.kubectl.finish("lost", "Failed", timeout=60)
    assert task["status"]["error"] == f'ConfigMap "{source["name"]}" does not belong to Task "lost"'
    assert task["status"]["conditions"][0]["reason"] == "ContentLost"
