"""``kubechain up``: a control plane, NATS and the services, in the foreground or in the background.

Exit codes: 0 everything is ready (or was already running); 1 something did not come up, and what is on the screen;
130 Ctrl-C with --detach, after which the cluster goes on coming up.
"""

from __future__ import annotations

import asyncio
import json
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console

from kubechain_cli.console import TerminalProgress, new_console, print_cluster, print_error, print_event
from kubechain_cli.localcluster.binaries import get_control_plane
from kubechain_cli.localcluster.detached import follow, start_supervisor
from kubechain_cli.localcluster.errors import LocalClusterError, ProcessFailedError
from kubechain_cli.localcluster.files import tail
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.leftovers import end_leftovers
from kubechain_cli.localcluster.readiness import ask_processes
from kubechain_cli.localcluster.services import parse_services
from kubechain_cli.localcluster.sources.wheels import find_kubectl, find_nats_server
from kubechain_cli.localcluster.state import ClusterState, read_running_state, read_state
from kubechain_cli.localcluster.turn import take_turn
from kubechain_cli.options import Output, OutputOption, StateDir

INTERRUPTED = 130


class Programs(NamedTuple):
    """What is to run: the binaries, and the names of the services."""

    binaries: dict[str, Path]
    services: tuple[str, ...]


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when all is ready; `down` stops it.")] = False,
    state_dir: StateDir = None,
    services: Annotated[str, typer.Option(help="Services to run: all, none, or names separated by commas.")] = "all",
    context: Annotated[
        str | None, typer.Option(help="Use the cluster of this kubeconfig context; only what is missing is started.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the services with --detach.")] = 120.0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Start KubeChain on this machine, or beside a cluster of yours."""
    console, layout = new_console(stderr=True), Layout.at(state_dir)

    def start() -> bool:
        running = read_running_state(layout)
        if running is not None:
            return tell_running(console, layout, running, output)
        programs = choose_programs(console, services, context)  # may take minutes, for which nobody else has to wait
        with take_turn(layout) as turn:
            if isinstance(turn, ClusterState):
                return tell_running(console, layout, turn, output)
            prepare_cluster(console, layout, programs, context)
            if not detach:
                return run_foreground(console, layout, output)
            notify = start_supervisor(layout, turn)
        try:
            return run_detached(console, layout, notify, output, timeout)
        except KeyboardInterrupt:  # the supervisor has a session of its own, and heard nothing of it
            console.print(describe_rest(layout, state_dir), markup=False)
            raise typer.Exit(INTERRUPTED) from None

    try:
        ready = start()
    except LocalClusterError as error:
        print_error(error)
        raise typer.Exit(1) from None
    raise typer.Exit(0 if ready else 1)


def describe_rest(layout: Layout, state_dir: Path | None) -> str:
    """What goes on without us, and how to end it."""
    place = f" --state-dir {shlex.quote(str(layout.root))}" if state_dir is not None else ""
    return f"\nIt goes on coming up in the background; `kubechain down{place}` stops it."


def tell_running(console: Console, layout: Layout, running: ClusterState, output: Output) -> bool:
    """Say that there is nothing to start; True, because that is fine."""
    console.print(f"Already running (supervisor {running.supervisor_pid}).")
    print_result(asyncio.run(ask_processes(layout, running)), output)
    return True


def choose_programs(console: Console, services: str, context: str | None) -> Programs:
    """Find or make the binaries, for these services."""
    names = parse_services(services)
    binaries = {"nats-server": find_nats_server()}
    if context is None:
        control_plane = get_control_plane(TerminalProgress(console))
        binaries |= control_plane.paths
        console.print(f"Control plane binaries: {control_plane.source}")
    else:
        binaries["kubectl"] = find_kubectl()
    return Programs(binaries, names)


def prepare_cluster(console: Console, layout: Layout, programs: Programs, context: str | None) -> None:
    """Sweep what a killed supervisor left, and write the plan. The lock is ours: what the state names was left."""
    from kubechain_cli.localcluster.prepare import prepare  # 0.1 s of cryptography, where it is not running already

    stale = read_state(layout)
    if stale is not None and (left := end_leftovers(stale)):
        console.print(f"Ended what an earlier run had left: {', '.join(left)}")
    prepare(layout, binaries=programs.binaries, services=programs.services, context=context)


def run_detached(console: Console, layout: Layout, notify: int, output: Output, timeout: float) -> bool:
    """Listen to the supervisor in the background; True when everything is ready in time."""
    for event in follow(notify, layout, timeout):
        print_event(console, event)
        if "failed" in event:
            raise ProcessFailedError(event["failed"])
    state = read_running_state(layout)
    if state is None:
        raise ProcessFailedError(f"The supervisor ended. See {layout.supervisor_log}.")
    for process in state.processes:
        if not process.ready:
            log = layout.log_file(process.name)
            console.print(f"{process.name} is not ready. The end of {log}:\n{tail(log)}", markup=False, style="yellow")
    print_result(state, output)
    return state.ready


def run_foreground(console: Console, layout: Layout, output: Output) -> bool:
    """Run the supervisor in this process, which has the lock, until Ctrl-C."""
    from kubechain_cli.localcluster.supervisor import supervise  # with --detach it is for another process

    def report(event: dict[str, Any]) -> None:
        print_event(console, event)
        if "up" in event and (state := read_running_state(layout)) is not None:
            print_result(state, output)
            console.print("Ready. Ctrl-C stops everything.")

    with suppress(KeyboardInterrupt):
        asyncio.run(supervise(layout, report))
    console.print("Stopped.")
    return True


def print_result(state: ClusterState, output: Output) -> None:
    """The cluster on stdout."""
    if output is Output.JSON:
        typer.echo(json.dumps(state.to_status(), indent=2))
    else:
        print_cluster(new_console(), state)
