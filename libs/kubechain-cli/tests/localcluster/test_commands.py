"""The command line without a cluster: exit codes, hints, and what is not imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kubechain_cli.localcluster.checkup import Finding, Verdict, check_api_keys, examine
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.main import COMMANDS, app

runner = CliRunner()


def test_help_lists_every_command_without_importing_any() -> None:
    code = (
        "import sys; from kubechain_cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith(('kubechain_cli.commands.', 'aiohttp', 'pydantic', 'psutil'))])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.rstrip().endswith("[]")
    assert all(name in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", ["up", "down", "status", "doctor"])
def test_each_command_has_help(name: str) -> None:
    result = runner.invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert "--state-dir" in result.output


def test_an_unknown_command_is_refused() -> None:
    assert runner.invoke(app, ["nonsense"]).exit_code == 2


def test_status_of_nothing(tmp_path: Path) -> None:
    result = runner.invoke(app, ["status", "--state-dir", str(tmp_path)])
    assert result.exit_code == 3
    assert "kubechain up" in result.output


def test_down_of_nothing(tmp_path: Path) -> None:
    result = runner.invoke(app, ["down", "--state-dir", str(tmp_path / "none")])
    assert (result.exit_code, result.output) == (0, "Nothing was running.\n")


def test_down_refuses_to_keep_and_purge(tmp_path: Path) -> None:
    assert runner.invoke(app, ["down", "--keep-data", "--purge", "--state-dir", str(tmp_path)]).exit_code == 2


def test_up_refuses_an_unknown_service(tmp_path: Path) -> None:
    result = runner.invoke(app, ["up", "--detach", "--services", "x", "--state-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "task-controller" in result.output


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_lacks_a_character_shows_another(tmp_path: Path, encoding: str) -> None:
    command = [sys.executable, "-m", "kubechain_cli", "doctor", "--state-dir", str(tmp_path / "größe")]
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    result = subprocess.run(command, capture_output=True, env=env, check=False, timeout=50)
    assert b"Python" in result.stdout
    assert result.stderr == b""


def test_doctor_never_shows_a_key(tmp_path: Path) -> None:
    finding = check_api_keys({"OPENAI_API_KEY": "sk-very-secret"})
    assert "sk-very-secret" not in str(finding)
    assert "OPENAI_API_KEY" in finding.found


def test_doctor_looks_at_everything_and_always_says_what_to_do(tmp_path: Path) -> None:
    findings = examine(Layout(tmp_path / "none"), {})
    subjects = {finding.subject for finding in findings}
    assert {"Python", "Control plane", "Go", "nats-server", "kubectl", "uvx", "npx", "Ports", "Disk"} <= subjects
    assert all(finding.advice for finding in findings if finding.verdict is not Verdict.OK)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.OK, 0), (Verdict.HINT, 0), (Verdict.MISSING, 1)])
def test_doctor_exit_code(monkeypatch: pytest.MonkeyPatch, verdict: Verdict, code: int) -> None:
    monkeypatch.setattr(
        "kubechain_cli.commands.doctor.examine", lambda _: [Finding("Disk", verdict, "full", "Make room.")]
    )
    result = runner.invoke(app, ["doctor", "-o", "json"])
    assert result.exit_code == code
    assert json.loads(result.output) == [
        {"subject": "Disk", "verdict": verdict.value, "found": "full", "advice": "Make room."}
    ]
