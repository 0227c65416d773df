"""``kubechain status``: exit code 0 all ready, 1 something is not, 3 nothing runs."""

from __future__ import annotations

import asyncio
import json

import typer

from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.readiness import ask_processes
from kubechain_cli.localcluster.state import read_running_state
from kubechain_cli.options import Output, OutputOption, StateDir

NOT_READY, NOT_RUNNING = 1, 3


def status(state_dir: StateDir = None, output: OutputOption = Output.TEXT) -> None:
    """Show every process of the cluster. Exit code 0: all ready; 1: not all; 3: nothing runs."""
    layout = Layout.at(state_dir)
    state = read_running_state(layout)
    if state is None:
        typer.echo(f"Nothing runs in {layout.root}. Start it with `kubechain up`.", err=True)
        raise typer.Exit(NOT_RUNNING)
    state = asyncio.run(ask_processes(layout, state))
    if output is Output.JSON:
        typer.echo(json.dumps(state.to_status(), indent=2))
    else:
        from kubechain_cli.console import new_console, print_cluster  # rich: scripts that ask for JSON need it not

        print_cluster(new_console(), state)
    raise typer.Exit(0 if state.ready else NOT_READY)
