"""``kubechain inbox``: what waits for a person, and how to answer it.

Exit codes: 0 shown, also when nothing waits; 1 the cluster did not answer, or not to this user; 130 Ctrl-C.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from kubechain_cli.answering.changes import Arrived, Done, Inbox
from kubechain_cli.answering.finding import Finder
from kubechain_cli.answering.rendering import render_hint, render_inbox
from kubechain_cli.answering.session import run_session
from kubechain_cli.answering.waiting import Waiting
from kubechain_cli.options import AllNamespaces, Namespace, Output, OutputOption
from kubechain_cli.taskrun.terminal import printable
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import KubeError


def inbox(
    namespace: Namespace = "default",
    all_namespaces: AllNamespaces = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on with what comes and goes.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show the tool calls that wait for a person: what is to be approved, and what is asked."""
    place = "" if all_namespaces else namespace

    async def look(kube: KubeClient) -> None:
        finder = Finder(kube, place)
        if watch:
            await follow(finder, output)
        else:
            show(await finder.find(), output)

    run_session(look)


def show(waiting: list[Waiting], output: Output) -> None:
    """The whole inbox, on standard output."""
    if output is Output.JSON:
        write(json.dumps([item.to_json() for item in waiting], indent=2))
        return
    write(render_inbox(waiting, datetime.now(UTC)))
    if waiting:
        write(f"\nAnswer with: {render_hint(waiting[0])}")


async def follow(finder: Finder, output: Output) -> None:
    """Tells of each call as it arrives, and how it ended; one JSON object a line for scripts. Raises KubeError."""
    told = Inbox()
    async for sight in finder.watch(tell_trouble):
        change = told.notice(sight)
        if isinstance(change, Arrived):
            item = await finder.look_up_if_possible(change.call)
            if output is Output.JSON:
                write(json.dumps({"type": "Waiting", "call": item.to_json()}))
            else:
                write(f"{render_inbox([item], datetime.now(UTC))}\n    {render_hint(item)}\n")
        elif isinstance(change, Done):
            write(describe_done(change, output))


def tell_trouble(error: KubeError) -> None:
    """Says on standard error why there is no news: silence would look as if nothing waited."""
    typer.echo(printable(f"No news for now: {error}"), err=True)


def describe_done(done: Done, output: Output) -> str:
    """The line about a call that left the inbox."""
    namespace, name = done.key
    if output is Output.JSON:
        return json.dumps({"type": "Done", "namespace": namespace, "name": name, "how": done.how})
    return f"{namespace}/{name}: {done.how}.\n"


def write(text: str) -> None:
    """Writes at once, also when a program reads it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
