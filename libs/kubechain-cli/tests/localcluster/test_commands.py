"""The command line without a cluster: exit codes, hints, and what is not imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kubechain_cli.localcluster.checkup import Finding, Verdict, check_api_keys, check_state_dir, examine
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


@pytest.mark.parametrize(
    "arguments", [["up", "--context", "x"], ["down"], ["status"], ["run", "agent", "hi"], ["inbox"]]
)
def test_what_the_system_refuses_is_told_in_a_sentence(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "kubechain_cli", *arguments]
    env = {**os.environ, "KUBECHAIN_HOME": str(tmp_path / "file" / "x")}
    env.pop("KUBECONFIG", None)
    result = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=50)
    assert (result.returncode, result.stderr) == (1, f"Error: Not a directory: {tmp_path}/file/x/state.json\n")


@pytest.mark.parametrize("place", ["file/x", *(["/proc/x"] if sys.platform == "linux" else [])])
def test_doctor_says_that_the_state_can_not_be_written_and_what_else_it_sees(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    findings = {finding.subject: finding for finding in examine(Layout(tmp_path / place), {})}
    assert findings["State"].verdict is Verdict.MISSING
    assert {"Python", "Disk", "Cluster"} <= findings.keys()


def test_doctor_leaves_nothing_where_it_looks(tmp_path: Path) -> None:
    assert check_state_dir(Layout(tmp_path / "none")).verdict is Verdict.OK
    assert list(tmp_path.iterdir()) == []


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
