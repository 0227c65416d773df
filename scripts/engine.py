"""Runs a command while a container engine runs: ``python -m scripts.engine pytest tests/containers``.

An engine that answers is used and left alone. Otherwise dockerd is started if it is installed and we are root, and
ended after the command, once nobody else is in here. Where none can run, the command runs all the same, with the
reason in KUBECHAIN_NO_ENGINE.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from scripts.images import engine
from scripts.locks import hold, is_held

NO_ENGINE = "KUBECHAIN_NO_ENGINE"
START_SECONDS = 60.0
STOP_SECONDS = 60.0
LOOK_SECONDS = 0.5
STARTING, USING = "engine-starting", "engine-using"
PID_FILES = (Path("/var/run/docker.pid"), Path("/var/run/docker/containerd/containerd.pid"))
LOG = Path("/var/log/kubechain-dockerd.log")


class NoEngineError(Exception):
    """Why none can run here, as a part of a sentence."""


def answers() -> bool:
    try:
        engine.run("version", "--format", "{{.Server.Version}}")
    except engine.EngineError:
        return False
    return True


@contextmanager
def running_engine() -> Iterator[None]:
    """Raises NoEngineError. For several processes at a time: whoever started it ends it when all of them are done."""
    try:
        engine.find_client()
    except engine.EngineError as error:
        raise NoEngineError(str(error)) from error
    with ExitStack() as stack:
        with hold(STARTING):
            if not answers():
                wait_until_it_answers(stack.enter_context(start_daemon()))
            stack.enter_context(hold(USING, shared=True))
        yield


@contextmanager
def start_daemon() -> Iterator[subprocess.Popen[bytes]]:
    if "DOCKER_HOST" in os.environ:
        raise NoEngineError("the engine that DOCKER_HOST names does not answer")
    dockerd = shutil.which("dockerd")
    if dockerd is None or os.geteuid() != 0:
        raise NoEngineError("no container engine answers, and starting one needs root and dockerd")
    for file in PID_FILES:
        forget_the_dead(file)
    with LOG.open("wb") as log:
        daemon = subprocess.Popen(
            [dockerd, "--storage-driver=overlay2"], stdout=log, stderr=log, stdin=subprocess.DEVNULL, process_group=0
        )
    try:
        yield daemon
    finally:
        while not end_if_unused(daemon):
            time.sleep(LOOK_SECONDS)


def end_if_unused(daemon: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended. While we look nobody begins to use it."""
    with hold(STARTING):
        if is_held(USING):
            return False
        daemon.terminate()
        try:
            daemon.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        return True


def wait_until_it_answers(daemon: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers():
        if daemon.poll() is not None or time.monotonic() > deadline:
            last = [line for line in LOG.read_text(errors="replace").splitlines() if line.strip()][-1:]
            raise NoEngineError(f"dockerd does not come up: {''.join(last) or 'without a word'}")
        time.sleep(0.2)


def forget_the_dead(pid_file: Path, processes: Path = Path("/proc")) -> None:
    """Removes the file if another program has that number by now: the daemon would take it for itself."""
    try:
        pid = int(pid_file.read_text())
        name = (processes / str(pid) / "comm").read_text().strip()
    except (OSError, ValueError):
        name = ""
    if name != {"docker.pid": "dockerd"}.get(pid_file.name, "containerd"):
        pid_file.unlink(missing_ok=True)


def main(command: Sequence[str]) -> int:
    program = Path(sys.executable).parent / command[0]
    arguments = [str(program if program.exists() else command[0]), *command[1:]]
    try:
        with running_engine():
            return subprocess.run(arguments, check=False).returncode
    except NoEngineError as reason:
        print(f"engine: {reason}", file=sys.stderr, flush=True)
        return subprocess.run(arguments, check=False, env={**os.environ, NO_ENGINE: str(reason)}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
