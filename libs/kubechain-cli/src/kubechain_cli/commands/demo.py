"""``kubechain demo``: bring everything up, walk the tutorial, and leave nothing behind unless told to keep it.

Exit codes: 0 the whole tutorial worked; 1 something failed, and why is on the screen; 2 the command line asks for
something that is not there; 130 Ctrl-C, 143 SIGTERM, 129 a terminal that was closed. The signal that ends it is the
last that it hears: a second one would leave the cluster running.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from kubechain_cli.console import print_error
from kubechain_cli.demo.backend import SCRIPTED_KEY, Backend, Choice, MissingKeyError, choose_backend, explain_backend
from kubechain_cli.demo.errors import CommandError, DemoError
from kubechain_cli.demo.household import Household, build_environment, kept_state_dir
from kubechain_cli.demo.page import PUBLIC_URL, is_person_at
from kubechain_cli.demo.walk import Surroundings, build_stages
from kubechain_cli.demo.walker import Walker, render_summary
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.signals import ending_signals, ignore_ending_signals
from kubechain_cli.taskrun.terminal import new_literal_console

INTERRUPTED = 130


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cluster running, for you to go on with.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop and remove a demo that was kept.")] = False,
    llm: Annotated[Choice, typer.Option(help="Who answers; auto takes a provider whose key is set.")] = "auto",
) -> None:
    """Walk the tutorial on a local cluster, from nothing to an agent with tools."""
    console = new_literal_console(sys.stdout)
    kept = kept_state_dir(os.environ)
    if stop:
        build_household(kept).stop()
        console.print(f"Nothing of a kept demo is left in {kept}.")
        return
    try:
        backend = choose_backend(llm, os.environ)
    except MissingKeyError as error:
        print_error(error)
        raise typer.Exit(2) from None
    if keep and kept.exists():
        print_error(f"There is a kept demo in {kept} already. Remove it with: kubechain demo --stop")
        raise typer.Exit(2)
    for number in ending_signals():
        signal.signal(number, end)
    with new_household(console, kept if keep else None) as household:
        raise typer.Exit(walk_tutorial(console, household, backend, keep=keep))


def end(number: int, _: object) -> NoReturn:
    """Handle the first signal that ends the demo."""
    ignore_ending_signals()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def build_household(state_dir: Path) -> Household:
    """The processes of the demo in this directory."""
    layout = Layout.at(state_dir)
    return Household(layout, build_environment(os.environ, layout))


@contextmanager
def new_household(console: Console, kept: Path | None) -> Iterator[Household]:
    """A household, in ``kept`` or in a new directory; it is stopped at the end unless it is a kept one that works."""
    household = build_household(kept or Path(tempfile.mkdtemp(prefix="kubechain-demo-")))
    household.layout.create()
    done = False
    try:
        yield household
    except typer.Exit as end:
        done = end.exit_code == 0
        raise
    except KeyboardInterrupt:
        with suppress(OSError):
            console.print("\nInterrupted.")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        ignore_ending_signals()
        if kept is None or not done:
            with suppress(OSError):  # the terminal may be what has ended it
                console.print("\nCleaning up.", style="dim")
            household.stop()


def walk_tutorial(console: Console, household: Household, backend: Backend, *, keep: bool) -> int:
    """The whole demo; returns the exit code."""
    console.print(explain_backend(backend), style="bold yellow" if backend.scripted else "bold")
    times: dict[str, float] = {}
    try:
        walker = Walker(console, household.layout, household.env)
        began = time.monotonic()
        walker.tell_heading("Cluster")
        where = set_up(household, backend)
        times["Cluster"] = time.monotonic() - began
        key = SCRIPTED_KEY if backend.scripted else os.environ[backend.key_name]
        for stage in build_stages(where, key):
            times[stage.title] = walker.walk(stage)
    except DemoError as error:
        if isinstance(error, CommandError):
            walker.explain_failure(error.command)
        console.print(f"\n=== The demo failed ===\n{error}", style="bold red")
        return 1
    console.print(f"\n=== Done: every step of the tutorial worked ===\n{render_summary(times)}", style="bold green")
    if backend.scripted:
        console.print("The answers came from the scripted stand-in, not from an LLM.", style="bold yellow")
    if keep:
        console.print(describe_kept(household))
    return 0


def set_up(household: Household, backend: Backend) -> Surroundings:
    """Start all that the walk needs; the servers come up beside the cluster. Raises ``DemoError``."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        where = pool.submit(start_servers, household, backend)
        household.start_cluster()
    return where.result()


def start_servers(household: Household, backend: Backend) -> Surroundings:
    """Start what this machine does not reach: a provider without a key, and the web page. Raises ``SetupError``."""
    base_url = None
    if backend.scripted:
        options = ("--script", "tutorial", "--model", backend.model, "--require-key", SCRIPTED_KEY)
        base_url = household.start_server("kubechain_cli.scripted_llm", *options)["url"]
    if asyncio.run(is_person_at(PUBLIC_URL)):
        return Surroundings(backend, base_url, PUBLIC_URL, local_page=False)
    page_url = household.start_server("kubechain_cli.demo.page")["url"]
    return Surroundings(backend, base_url, page_url, local_page=True)


def describe_kept(household: Household) -> str:
    """How to go on with a kept demo, and how to end it."""
    return (
        "\nThe cluster goes on running:\n"
        f"  export KUBECONFIG={shlex.quote(str(household.layout.kubeconfig))}\n"
        "  kubectl get kubechain\n"
        # Which says where NATS is; for this command alone, or `demo --stop` would look beside it.
        f"  KUBECHAIN_HOME={shlex.quote(str(household.layout.root))} \\\n"
        '    kubechain run my-assistant "What is the capital of the moon?" --follow\n'
        "Stop it and remove everything: kubechain demo --stop"
    )
