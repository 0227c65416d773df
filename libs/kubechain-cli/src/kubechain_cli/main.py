"""The ``kubechain`` command: a table of commands, each imported when it is run (see ``lazy``)."""

from __future__ import annotations

import io
import sys
from contextlib import suppress

import typer

from kubechain_cli.lazy import build_group

COMMANDS = {
    "up": ("kubechain_cli.commands.up", "Start KubeChain on this machine, or beside a cluster of yours."),
    "down": ("kubechain_cli.commands.down", "Stop what `up` started."),
    "status": ("kubechain_cli.commands.status", "Show every process of the cluster."),
    "doctor": ("kubechain_cli.commands.doctor", "Check this machine and say what is missing."),
    "run": ("kubechain_cli.commands.run", "Create a Task, follow it to its end, print the answer."),
    "inbox": ("kubechain_cli.commands.inbox", "Show the tool calls that wait for a person."),
    "approve": ("kubechain_cli.commands.approve", "Approve a tool call that waits for approval."),
    "reject": ("kubechain_cli.commands.reject", "Reject a tool call that waits for approval."),
    "respond": ("kubechain_cli.commands.respond", "Answer the question that a tool call asks."),
    "demo": (
        "kubechain_cli.commands.demo",
        "Walk the tutorial on a local cluster, from nothing to an agent with tools.",
    ),
}

app = typer.Typer(
    cls=build_group(COMMANDS),
    help="KubeChain runs AI agents on Kubernetes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def kubechain() -> None:
    """KubeChain runs AI agents on Kubernetes."""


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character shows another one: that is no reason to end.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except OSError as error:
        sys.exit(tell_os_error(error))


def tell_os_error(error: OSError) -> int:
    """What the system refused, as a sentence, and the exit code: a disk is full, or a directory is none."""
    from kubechain_cli.console import print_error

    with suppress(OSError):  # it may be the terminal
        print_error(": ".join(str(part) for part in (error.strerror or error, error.filename) if part))
    return 1
