"""What a demo does with signals, in a process of its own in which walking and stopping wait to be told to go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

PROGRAM = """
import sys, time
from pathlib import Path
from kubechain_cli.commands import demo
from kubechain_cli.demo.household import Household

def walk_tutorial(*_, **__):
    print("walking", flush=True)
    sys.stdin.readline()
    return 0

def stop(_):
    print("stopping", file=sys.stderr, flush=True)
    sys.stdin.readline()
    Path(sys.argv[1]).touch()

demo.walk_tutorial, Household.stop = walk_tutorial, stop
from kubechain_cli.main import app
app(["demo", "--llm", "scripted"])
"""


@contextmanager
def demo(stopped: Path, ignored: Sequence[signal.Signals] = ()) -> Iterator[subprocess.Popen[str]]:
    """A demo that walks; `stopped` is there once it has cleaned up."""

    def ignore() -> None:  # whatever runs these tests may ignore some itself, as nohup does
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(stopped)],
        env={**os.environ, "TMPDIR": str(stopped.parent)},
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        preexec_fn=ignore,
    ) as process:
        try:
            await_line(process.stdout, "walking")
            yield process
        finally:
            process.kill()


def await_line(stream: IO[str] | None, text: str) -> None:
    assert stream is not None
    assert any(line.strip() == text for line in stream)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_ends_it_and_no_other_ends_the_cleaning(tmp_path: Path, number: signal.Signals) -> None:
    with demo(tmp_path / "stopped") as process:
        process.send_signal(number)
        await_line(process.stderr, "stopping")
        for another in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(another)
        process.communicate("\n", timeout=20)
    assert (process.returncode, (tmp_path / "stopped").exists()) == (128 + number, True)


def test_it_cleans_up_when_its_terminal_is_gone(tmp_path: Path) -> None:
    with demo(tmp_path / "stopped") as process:
        assert process.stdout is not None
        process.stdout.close()
        process.send_signal(signal.SIGHUP)
        process.communicate("\n", timeout=20)
    assert (tmp_path / "stopped").exists()


def test_nohup_keeps_it_going(tmp_path: Path) -> None:
    with demo(tmp_path / "stopped", [signal.SIGHUP]) as process:
        process.send_signal(signal.SIGHUP)
        process.communicate("\n\n", timeout=20)
    assert process.returncode == 0
    assert (tmp_path / "stopped").exists()
