"""What the cluster commands show in a terminal. Progress goes to stderr, so that stdout carries only the answer."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from kubechain_cli.localcluster.layout import Layout

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from kubechain_cli.localcluster.checkup import Finding
    from kubechain_cli.localcluster.sources.progress import Step
    from kubechain_cli.localcluster.state import ClusterState, ProcessState

# Seconds between two lines of a long step when the output is no terminal.
PLAIN_INTERVAL = 10.0


class PipeConsole(Console):
    """A console to which a closed pipe is an error like any other: rich would end the process there and then."""

    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError that is being handled


def new_console(*, stderr: bool = False) -> Console:
    """A console that breaks no long path when it is not a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return PipeConsole(file=stream, highlight=False, soft_wrap=True)


def print_error(text: object) -> None:
    """One error for the user, on stderr."""
    new_console(stderr=True).print(f"[red]Error:[/red] {escape(str(text))}")


class TerminalProgress:
    """``localcluster.sources.progress.Progress`` as rich progress bars."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def note(self, text: str) -> None:
        self._console.print(escape(text))

    @contextmanager
    def step(self, title: str, *, size: bool = False) -> Iterator[Step]:
        from rich import progress as bars  # 10 ms, and seldom is anything fetched or built

        columns: list[bars.ProgressColumn] = [
            bars.SpinnerColumn(),
            bars.TextColumn("{task.description}"),
            bars.BarColumn(bar_width=24),
            bars.DownloadColumn() if size else bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
            bars.TextColumn("{task.fields[detail]}", style="dim"),
        ]
        if not self._console.is_terminal:
            self._console.print(f"{title} ...")
            yield PlainStep(self._console, title)
            return
        with bars.Progress(*columns, console=self._console, transient=True) as progress:
            yield BarStep(progress, progress.add_task(title, total=None, detail=""))


class BarStep:
    """A step that is shown as a bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, done: float, total: float | None, detail: str = "") -> None:
        self._progress.update(self._task, completed=done, total=total, detail=escape(detail))


class PlainStep:
    """A step that writes a line now and then, so that a log file shows that it goes on."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._started = self._printed = time.monotonic()

    def advance(self, done: float, total: float | None, detail: str = "") -> None:
        now = time.monotonic()
        if now - self._printed >= PLAIN_INTERVAL:
            self._printed = now
            share = f", {100 * done / total:.0f} %" if total else ""
            self._console.print(f"{self._title} ... {now - self._started:.0f} s{share}")


def print_event(console: Console, event: dict[str, Any]) -> None:
    """One line for what the supervisor reports."""
    if "ready" in event:
        console.print(f"[green]✓[/green] {event['ready']} [dim]{event['seconds']:.1f} s[/dim]")
    elif "died" in event:
        console.print(
            f"[yellow]![/yellow] {event['died']} ended with exit code {event['exit']}, "
            f"starting it again in {event['delay']:g} s"
        )
    elif "unwritten" in event:
        console.print(f"[yellow]![/yellow] `kubechain status` will be behind for a while: {escape(event['unwritten'])}")


def print_cluster(console: Console, state: ClusterState) -> None:
    """The table of processes, and how to reach the cluster."""
    for line in render_processes(state.processes):
        console.print(line)
    console.print(f"Logs: {escape(str(Layout.at(Path(state.state_dir)).logs))}")
    console.print(f"NATS: {state.nats_url}")
    if state.page_url:
        console.print(f"Inbox: {state.page_url} (also: kubechain inbox)")
    print_hint(console, state.kubeconfig)


def render_processes(processes: Sequence[ProcessState]) -> list[Text]:
    """A line each, as long as it is: a narrow terminal breaks it, while a table of rich's would cut pids and ports."""
    rows = [("NAME", "READY", "PID", "PORT", "RESTARTS")]
    for process in processes:
        ready, pid, port = str(process.ready).lower(), str(process.pid or "-"), str(process.port or "-")
        rows.append((process.name, ready, pid, port, str(process.restarts)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    styles = {"true": "green", "false": "red"}
    lines = []
    for row in rows:
        cells = (Text(cell.ljust(width), styles.get(cell, "")) for cell, width in zip(row, widths, strict=True))
        lines.append(Text("  ").join(cells))
    lines[0].stylize("bold")
    return lines


def print_findings(console: Console, findings: list[Finding]) -> None:
    """One line for each check, and under it what to do."""
    marks = {"ok": "[green]✓[/green]", "hint": "[yellow]![/yellow]", "missing": "[red]✗[/red]"}
    for finding in findings:
        console.print(f"{marks[finding.verdict]} [bold]{finding.subject}[/bold]: {escape(finding.found)}")
        if finding.advice:
            console.print(f"  [dim]{escape(finding.advice)}[/dim]")


def print_hint(console: Console, kubeconfig: str) -> None:
    """How to point kubectl at the cluster."""
    console.print(f"export KUBECONFIG={escape(shlex.quote(kubeconfig))}")
