"""Exit codes of ``kubechain run``, and what it says with them; no cluster needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from kubechain_cli.commands.run import RunOptions, check_options, conclude, describe_missing_agent, run
from kubechain_cli.taskrun.errors import RunError, TaskDeletedError, TaskTimeoutError, UsageError
from kubechain_common.api.v1alpha1 import Task


def finished(**status: Any) -> Task:
    spec = {"agentRef": {"name": "a"}, "userMessage": "hi"}
    return Task.model_validate({"metadata": {"name": "t"}, "spec": spec, "status": status})


def test_a_final_answer_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    conclude(finished(phase="FinalAnswer", output="42"))
    assert capsys.readouterr() == ("42\n", "")


def test_a_failed_task_is_an_error_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError, match="Task t failed: no money"):
        conclude(finished(phase="Failed", error="no money"))
    assert capsys.readouterr().out == ""


def test_exit_codes() -> None:
    codes = {error: error.exit_code for error in (RunError, TaskDeletedError, UsageError, TaskTimeoutError)}
    assert codes == {RunError: 1, TaskDeletedError: 1, UsageError: 2, TaskTimeoutError: 124}


def test_options_that_make_no_sense() -> None:
    check_options(RunOptions("a", "hi"))
    with pytest.raises(UsageError, match="empty"):
        check_options(RunOptions("a", " \n"))
    with pytest.raises(UsageError, match="exclude each other"):
        check_options(RunOptions("a", "hi", ttl=1, remove=True))


def test_a_missing_agent_is_told_with_what_is_there() -> None:
    options = RunOptions("a", "hi", namespace="ns")
    assert describe_missing_agent(options, ["c", "b"]) == "Agent 'a' not found in namespace 'ns'. There: b, c."
    assert "kubectl get agents --all-namespaces" in describe_missing_agent(options, [])


def test_without_a_cluster_it_says_what_to_do(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(run)
    env = {"KUBECONFIG": str(tmp_path / "absent"), "KUBECHAIN_HOME": str(tmp_path)}
    result = CliRunner(env=env).invoke(app, ["agent", "hi"])
    assert result.exit_code == 1
    assert "KUBECONFIG" in result.stderr
    assert result.stdout == ""
