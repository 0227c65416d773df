"""How a run looks: progress goes to standard error, the answer alone to standard output.

So ``kubechain run agent "question" > answer.txt`` keeps the answer, while the terminal still shows what goes on.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from contextlib import suppress
from typing import TextIO

from rich.console import Console
from rich.text import Text

from kubechain_cli.console import PipeConsole
from kubechain_cli.taskrun.steps import Step, StepKind

_LOOKS: dict[StepKind, tuple[str, str]] = {
    "asking": ("·", "dim"),
    "progress": ("·", "dim"),
    "call": ("→", "cyan"),
    "result": ("←", "green"),
    "waiting": ("…", "yellow"),
    "answer": ("✓", "bold green"),
    "error": ("✗", "bold red"),
}

_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """The text without control and bidi characters: what a tool or a model wrote must not steer the terminal."""
    return "".join(c for c in text if c in "\n\t" or (unicodedata.category(c) != "Cc" and c not in _BIDI))


def render_step(step: Step, seconds: float) -> Text:
    """One line: seconds since the start, a sign for the kind, the words."""
    sign, style = _LOOKS[step.kind]
    line = Text(f"{seconds:7.2f}s ", style="dim")
    line.append(f"{sign} ", style=style)
    line.append(printable(step.text), style="" if step.kind in ("asking", "progress", "call", "result") else style)
    return line


def new_literal_console(file: TextIO | None = None) -> Console:
    """A console on standard error that takes texts as they are, without markup; plain when that is no terminal."""
    return PipeConsole(file=file or sys.stderr, highlight=False, markup=False, soft_wrap=True)


class Screen:
    """Standard error during a run: steps line by line, and between them what the model writes as it writes it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._in_line = False

    @property
    def is_terminal(self) -> bool:
        return self._console.is_terminal

    def show(self, line: Text | str) -> None:
        """A line of its own."""
        self.end_line()
        self._console.print(line)

    def write(self, text: str) -> None:
        """More of what the model writes."""
        text = printable(text)
        self._console.print(Text(text), end="")
        self._in_line = not text.endswith("\n")

    def end_line(self) -> None:
        """Ends the line, so that what comes next begins a new one."""
        if self._in_line:
            self._console.print()
        self._in_line = False


def write_answer(text: str, out: TextIO) -> None:
    """The answer on a line of its own; byte for byte as it is, unless a terminal reads it.

    Raises UnicodeEncodeError when it can not be that, OSError.
    """
    if out.isatty():
        text = printable(text)
    else:
        text.encode(out.encoding or "utf-8")  # the stream itself would replace what its encoding lacks
    out.write(text + "\n")
    out.flush()


def abandon(out: TextIO) -> None:
    """Let go of what could not be written, which the end of the process would try to write once more."""
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), out.fileno())
