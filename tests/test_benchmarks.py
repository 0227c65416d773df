"""What a measurement leaves behind when it fails: nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# importlib mode leaves sys.path alone, so the repository's root has to be on it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import product


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
