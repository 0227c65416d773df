"""What is started from a directory with Python files of somebody else's, which must not be imported."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubechain_cli.demo.household import Household, build_environment
from kubechain_cli.localcluster.detached import follow, start_supervisor
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.plan import Plan, write_plan
from kubechain_cli.localcluster.turn import take_turn


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    project = tmp_path / "project"
    project.mkdir()
    for module in ("csv", "json"):
        (project / f"{module}.py").write_text("raise SystemExit('not yours')")
    monkeypatch.chdir(project)
    layout = Layout(tmp_path / "state")
    layout.create()
    return layout


@pytest.fixture
def household(layout: Layout) -> Iterator[Household]:
    household = Household(layout, build_environment(os.environ, layout))
    yield household
    household.stop_servers()


def test_the_servers_of_the_demo(household: Household) -> None:
    assert household.start_server("kubechain_cli.demo.page")["url"]


def test_the_command_of_the_demo(household: Household, capfd: pytest.CaptureFixture[str]) -> None:
    household.stop()
    assert capfd.readouterr().out == "Nothing was running.\n"


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")  # it ends right after its report
def test_the_supervisor(layout: Layout) -> None:
    write_plan(
        layout, Plan({"nats-server": "/bin/false", "kubectl": "/bin/true"}, {"nats": 1, "nats-monitor": 1}, (), "x")
    )
    with take_turn(layout) as turn:
        assert isinstance(turn, int)
        notify = start_supervisor(layout, turn)
    assert "failed" in list(follow(notify, layout, timeout=40))[-1]
