"""Conversations that grow beyond what their Agent gives the model to read."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.failures import assert_told
from tests.e2e.support.scripts import calls
from tests.e2e.support.witness import Witness
from tests.e2e.support.workspace import Workspace, reason_of

from kubechain_cli.scripted_llm import ChatMessage, Reply, Script, ScriptedServer, ToolSpec
from kubechain_cli.scripted_llm.script import Usage
from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

WISH = "Summarise this conversation"
SUMMARY = "Three calls were made, and nobody answered."
INTRODUCTION = "Summary of the conversation so far"


def grow(summary: Reply) -> Script:
    """400 tokens more each turn, with a call; the answer once there is a summary to read."""

    def script(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> Reply:
        if messages[-1].text.startswith(WISH):
            return summary
        if any(message.text.startswith(INTRODUCTION) for message in messages):
            return Reply("done", usage=Usage(200, 5))
        spoken = sum(message.role == "assistant" for message in messages)
        made = calls((f"nobody__{spoken}", {"n": spoken})).tool_calls
        return Reply(tool_calls=made, usage=Usage(400 * (spoken + 1), 5))

    return script


def apply_agent(workspace: Workspace, script: Script, overflow: str) -> ScriptedServer:
    llm = workspace.serve_llm(script)
    workspace.apply_agent(llm)
    workspace.kubectl.apply(manifests.agent(context={"maxTokens": 1000, "onOverflow": overflow}))
    return llm


@pytest.mark.failure("context-full")
def test_a_full_window_ends_its_task(workspace: Workspace, witness: Witness) -> None:
    llm = apply_agent(workspace, grow(Reply(SUMMARY)), "Fail")
    workspace.kubectl.apply(manifests.task("full", "go"))
    task = workspace.kubectl.finish("full", "Failed")
    assert (reason_of(task), task["status"]["turn"], len(llm.requests)) == ("ContextWindowExceeded", 3, 3)
    assert_told("context-full", witness, "full")


@pytest.mark.failure("context-summarised")
def test_a_full_window_is_summarised_and_the_record_stays(workspace: Workspace, witness: Witness) -> None:
    llm = apply_agent(workspace, grow(Reply(SUMMARY, usage=Usage(900, 40))), "Summarise")
    task = workspace.run_task("summarised", "go")
    status = task["status"]
    roles = [message["role"] for message in status["contextWindow"]]
    assert roles == ["system", "user", *["assistant", "tool"] * 3, "summary", "assistant"]
    assert (status["output"], status["turn"], status["messageCount"]) == ("done", 5, 10)
    assert status["tokenUsage"]["totalTokens"] == 405 + 805 + 1205 + 940 + 205
    windows = [request.body["messages"] for request in llm.requests]
    asked = [[message["role"] for message in window] for window in windows]
    assert asked[3] == ["system", "user", "assistant", "tool", "user"]
    assert asked[4] == ["system", "user", "user", "assistant", "tool", "assistant", "tool"]
    assert windows[4][2]["content"].endswith(SUMMARY)
    assert_told("context-summarised", witness, "summarised")


def test_a_controller_that_dies_during_a_summary_asks_for_no_second_one(workspace: Workspace) -> None:
    llm = apply_agent(workspace, grow(Reply(SUMMARY, usage=Usage(900, 40), delay=3.0)), "Summarise")
    workspace.kubectl.apply(manifests.task("interrupted", "go"))
    eventually(lambda: len(llm.requests) == 4, 20.0, what="the wish for a summary at the LLM")
    workspace.kill("task-controller")
    task = workspace.kubectl.finish("interrupted")
    assert (task["status"]["output"], task["status"]["turn"], len(llm.requests)) == ("done", 5, 5)


@pytest.mark.failure("context-no-summary")
def test_a_model_that_gives_no_summary_fails_its_task(workspace: Workspace, witness: Witness) -> None:
    apply_agent(workspace, grow(calls(("nobody__nothing", {}))), "Summarise")
    workspace.kubectl.apply(manifests.task("speechless", "go"))
    task = workspace.kubectl.finish("speechless", "Failed")
    assert reason_of(task) == "ContextWindowExceeded"
    assert len(workspace.calls_of("speechless")) == 3
    assert_told("context-no-summary", witness, "speechless")
