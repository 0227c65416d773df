"""What the benchmarks make of what they read, and what they leave behind when they fail: nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# importlib mode leaves sys.path alone, so the repository's root has to be on it for `benchmarks`.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import product
from benchmarks.cpu import CpuPerTask, ms_per_task, render_cpu


def test_a_cluster_that_does_not_come_up_in_time_is_taken_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def kubechain(command: str, *_: str, state: Path) -> str:
        asked.append(command)
        if command == "up":
            raise subprocess.CalledProcessError(1, command)
        return ""

    monkeypatch.setattr(product, "_kubechain", kubechain)
    with pytest.raises(subprocess.CalledProcessError), product._running_cluster(tmp_path):
        pass
    assert asked == ["up", "down"]


def test_what_a_process_uses_when_idle_is_not_counted_as_work() -> None:
    before, after = {"etcd": 10.0, "nats": 5.0}, {"etcd": 12.0, "nats": 5.1, "MCP servers": 1.0}
    idle = {"etcd": 0.05, "nats": 0.01}
    figures = ms_per_task(before, after, idle, 20.0, 100)
    assert figures == {"etcd": pytest.approx(10.0), "nats": 0.0, "MCP servers": pytest.approx(10.0)}


def test_the_table_tells_the_burst_from_what_follows_it() -> None:
    table = render_cpu({"plain": CpuPerTask({"etcd": 1.0, "nats": 2.0}, {"etcd": 4.0, "nats": 3.0})})
    assert table.splitlines()[-5:] == [
        "| CPU ms per Task | plain, in the burst | plain, with what follows it |",
        "|---|---|---|",
        "| etcd | 1.0 | 4.0 |",
        "| nats | 2.0 | 3.0 |",
        "| **together** | **3.0** | **7.0** |",
    ]
