"""Supervising one real child process: restarts, back-off, stopping, sweeping."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from kubechain_cli.localcluster.backoff import RestartBackoff
from kubechain_cli.localcluster.child import Child
from kubechain_cli.localcluster.identity import is_alive
from kubechain_cli.localcluster.processes import ProcessSpec, StopStage
from kubechain_common.testing.eventually import eventually

SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
WITH_CHILD = (
    "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    "print(p.pid, flush=True); time.sleep(60)"
)


class Watched:
    """A child whose changes can be waited for."""

    def __init__(self, spec: ProcessSpec) -> None:
        self._changed = asyncio.Event()
        self.child = Child(spec, lambda _: self._changed.set())

    async def until(self, condition: Callable[[Child], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition(self.child):
                self._changed.clear()
                await self._changed.wait()


def make_spec(tmp_path: Path, code: str, **changes: object) -> ProcessSpec:
    fields: dict[str, object] = {
        "name": "child",
        "argv": (sys.executable, "-c", code),
        "log_file": tmp_path / "child.log",
        "stage": StopStage.SERVICE,
        "backoff": RestartBackoff(first=0.01),
    }
    return ProcessSpec(**{**fields, **changes})  # type: ignore[arg-type]


@asynccontextmanager
async def running(spec: ProcessSpec) -> AsyncIterator[Watched]:
    watched = Watched(spec)
    async with asyncio.TaskGroup() as group:
        group.create_task(watched.child.run())
        try:
            yield watched
        finally:
            await watched.child.stop()


async def log_line(path: Path) -> str:
    """The first line of a log, once it is there."""
    return await asyncio.to_thread(eventually, lambda: path.read_text().strip() if path.exists() else "", 20)


def test_delays_double_up_to_the_cap() -> None:
    backoff = RestartBackoff()
    assert [backoff.delay(death) for death in range(1, 10)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert backoff.delay(100_000) == 10.0


async def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    async with running(make_spec(tmp_path, SLEEP)) as watched:
        await watched.until(lambda child: child.ready)
        first = watched.child.pid
        assert first is not None
        assert is_alive(first, watched.child.started_at)
        os.kill(first, signal.SIGKILL)
        await watched.until(lambda child: child.ready and child.pid != first)
        assert (watched.child.restarts, watched.child.last_exit) == (1, -signal.SIGKILL)
    assert watched.child.pid is None


async def test_a_crash_loop_backs_off_and_stability_forgives(tmp_path: Path) -> None:
    patient = RestartBackoff(first=0.01, stable_after=60)
    async with running(make_spec(tmp_path, "raise SystemExit(3)", backoff=patient)) as watched:
        await watched.until(lambda child: child.deaths_in_a_row >= 3)
        assert watched.child.last_exit == 3
    forgiving = RestartBackoff(first=0.01, stable_after=0)
    async with running(make_spec(tmp_path, "import time; time.sleep(0.3)", backoff=forgiving)) as watched:
        await watched.until(lambda child: child.restarts >= 2)
        assert watched.child.deaths_in_a_row == 1


async def test_a_missing_binary_is_a_death_that_the_log_explains(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, "", argv=("/nowhere/binary",))
    async with running(spec) as watched:
        await watched.until(lambda child: child.restarts >= 2)
        assert watched.child.last_exit == 127
    assert "cannot start /nowhere/binary" in spec.log_file.read_text()


async def test_a_binary_that_went_missing_is_looked_for_less_and_less_often(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.symlink_to(sys.executable)
    forgiving = RestartBackoff(first=0.01, stable_after=0)
    async with running(make_spec(tmp_path, "", argv=(str(binary), "-c", SLEEP), backoff=forgiving)) as watched:
        await watched.until(lambda child: child.ready)
        binary.unlink()
        assert watched.child.pid is not None
        os.kill(watched.child.pid, signal.SIGKILL)
        await watched.until(lambda child: child.restarts >= 4)
        assert watched.child.deaths_in_a_row == watched.child.restarts


async def test_a_log_that_can_not_be_written_is_waited_for(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    async with running(make_spec(tmp_path, SLEEP, log_file=logs / "child.log")) as watched:
        await watched.until(lambda child: child.restarts >= 2)
        logs.mkdir()
        await watched.until(lambda child: child.ready)


async def test_a_stubborn_child_is_killed_after_its_grace(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, STUBBORN, stop_grace=0.2)
    async with running(spec) as watched:
        await log_line(spec.log_file)
    assert watched.child.last_exit == -signal.SIGKILL


async def test_what_a_child_leaves_behind_is_swept(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, WITH_CHILD)
    async with running(spec):
        grandchild = psutil.Process(int(await log_line(spec.log_file)))
    gone, alive = psutil.wait_procs([grandchild], timeout=10)
    assert (len(gone), alive) == (1, [])


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux; elsewhere the next up cleans")
def test_a_child_dies_with_a_killed_supervisor(tmp_path: Path) -> None:
    code = f"""
import asyncio, pathlib
from kubechain_cli.localcluster.child import Child
from kubechain_cli.localcluster.identity import is_alive
from kubechain_cli.localcluster.processes import ProcessSpec, StopStage
spec = ProcessSpec("c", ("sleep", "60"), pathlib.Path({str(tmp_path)!r}) / "log", StopStage.SERVICE)
asyncio.run(Child(spec, lambda child: child.pid and print(child.pid, flush=True)).run())
"""
    import subprocess

    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        child = psutil.Process(int(supervisor.stdout.readline()))
        supervisor.kill()
        supervisor.wait(10)
    gone, alive = psutil.wait_procs([child], timeout=10)
    assert (len(gone), alive) == (1, [])
