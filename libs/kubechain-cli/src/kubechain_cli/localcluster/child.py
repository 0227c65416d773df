"""One supervised child: spawn, probe, restart with back-off, stop.

Each child leads a session of its own, so that whatever it leaves behind can be swept by its process group. Output
goes straight to the log file: a supervisor that is busy or dead never blocks a child on a full pipe.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from kubechain_cli.localcluster.identity import StartMark, read_start
from kubechain_cli.localcluster.parent_death import die_with_parent
from kubechain_cli.localcluster.probes import is_ready
from kubechain_cli.localcluster.processes import ProcessSpec

STARTING_PROBE_INTERVAL = 0.05


class Child:
    """Runs one ProcessSpec until it is told to stop; ``on_change`` is called after each change of the public fields."""

    def __init__(self, spec: ProcessSpec, on_change: Callable[[Child], None]) -> None:
        self.spec = spec
        self.pid: int | None = None
        self.started_at: StartMark | None = None
        self.ready = False
        self.restarts = 0
        self.deaths_in_a_row = 0
        self.last_exit: int | None = None
        self.became_ready = asyncio.Event()
        self._on_change = on_change
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._ready_since: float | None = None

    async def run(self) -> None:
        """Keep the process alive. Returns after ``stop``; raises nothing that a restart could heal."""
        while not self._stopping.is_set():
            await self._run_once()
            if self._stopping.is_set():
                return
            self.restarts += 1
            self.deaths_in_a_row = 1 if self._was_stable() else self.deaths_in_a_row + 1
            self._on_change(self)
            await self._pause(self.spec.backoff.delay(self.deaths_in_a_row))

    async def stop(self) -> None:
        """SIGTERM, wait up to ``stop_grace`` seconds, then SIGKILL for the whole group."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(self.spec.stop_grace):
                await process.wait()
        except TimeoutError:
            _kill_group(process.pid)
            await process.wait()

    async def _run_once(self) -> None:
        self._ready_since = None  # of an earlier life, which says nothing of this one
        try:
            process = await self._spawn()
        except OSError as error:
            with suppress(OSError), self.spec.log_file.open("a") as log:
                log.write(f"cannot start {self.spec.argv[0]}: {error}\n")
            self.last_exit = 127
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                probing = tasks.create_task(self._probe())
                self.last_exit = await process.wait()
                probing.cancel()
        finally:
            _kill_group(process.pid)
            self.pid, self.started_at, self.ready = None, None, False
            self._on_change(self)

    async def _spawn(self) -> asyncio.subprocess.Process:
        with self.spec.log_file.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self.spec.argv,
                env={**os.environ, **self.spec.env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        self._process = process
        self.pid, self.started_at = process.pid, read_start(process.pid)
        self._on_change(self)
        return process

    async def _probe(self) -> None:
        while True:
            ready = await is_ready(self.spec.probe)
            if ready != self.ready:
                self.ready = ready
                self._ready_since = time.monotonic() if ready else None
                if ready:
                    self.became_ready.set()
                self._on_change(self)
            await asyncio.sleep(self.spec.look_every if ready else STARTING_PROBE_INTERVAL)

    def _was_stable(self) -> bool:
        since = self._ready_since
        return since is not None and time.monotonic() - since >= self.spec.backoff.stable_after

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


def _kill_group(pgid: int) -> None:
    """End what a child left in its group; the group is gone in the usual case."""
    try:
        os.killpg(pgid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
