"""`kubechain run`: the answer on standard output, the steps on standard error, an exit code for scripts."""

from __future__ import annotations

import json

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.scripts import calls, in_turns
from tests.e2e.support.workspace import Workspace

from kubechain_cli.scripted_llm import Reply

pytestmark = pytest.mark.e2e


def test_a_run_prints_its_steps_and_its_answer(workspace: Workspace) -> None:
    workspace.kubectl.apply(
        manifests.secret("tenant", token=workspace.new_secret("tenant")),
        manifests.own_server(
            "tenant", "tenant_server.py", env=[manifests.from_secret("TENANT_TOKEN", "tenant", "token")]
        ),
    )
    # The answer takes its time, as answers do: Task and calls are two watches, and the run ends with its Task.
    answer = Reply("The answer is 42.", delay=0.5)
    llm = workspace.serve_llm(in_turns(calls(("tenant__whoami", {})), answer))
    workspace.apply_agent(llm, servers=["tenant"])
    done = workspace.cluster.run_cli("run", "my-assistant", "who are you?", "--follow", "-n", workspace.namespace)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "The answer is 42.\n"
    for step in ("asking the LLM", "tenant__whoami {}", "tenant__whoami succeeded:", "final answer after 2 turns"):
        assert step in done.stderr
    (task,) = workspace.kubectl.list("task")
    assert task["spec"]["userMessage"] == "who are you?"
    assert task["status"]["phase"] == "FinalAnswer"


def test_a_run_that_fails_says_why(workspace: Workspace) -> None:
    workspace.apply_agent(workspace.serve_llm(in_turns(Reply(status=400, error="The prompt is too long."))))
    done = workspace.cluster.run_cli("run", "my-assistant", "hello", "-n", workspace.namespace)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "The prompt is too long." in done.stderr


def test_a_run_of_an_agent_that_is_not_there_creates_nothing(workspace: Workspace) -> None:
    done = workspace.cluster.run_cli("run", "nobody", "hello", "-n", workspace.namespace)
    assert done.returncode == 2
    assert "nobody" in done.stderr
    assert workspace.kubectl.list("task") == []


def test_the_status_command_is_for_scripts(workspace: Workspace) -> None:
    shown = workspace.cluster.run_cli("status", "-o", "json")
    assert shown.returncode == 0, shown.stderr
    status = json.loads(shown.stdout)
    assert {"kubeconfig", "natsUrl", "processes"} <= status.keys()
    assert all({"name", "pid", "port", "ready"} <= process.keys() for process in status["processes"])
