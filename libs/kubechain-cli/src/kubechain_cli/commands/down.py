"""``kubechain down``: stop the cluster; by default its data goes too. Exit code 0, also when nothing ran."""

from __future__ import annotations

from typing import Annotated

import typer

from kubechain_cli.console import new_console, print_error
from kubechain_cli.localcluster.cleanup import delete_data, purge_state
from kubechain_cli.localcluster.detached import stop_cluster
from kubechain_cli.localcluster.errors import LocalClusterError
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.options import StateDir


def down(
    state_dir: StateDir = None,
    keep_data: Annotated[bool, typer.Option("--keep-data", help="Keep etcd, NATS and logs for the next `up`.")] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete the ports, keys and kubeconfig of the cluster as well.")
    ] = False,
) -> None:
    """Stop what `up` started and delete its data. The kubeconfig and the ports stay the same for the next `up`."""
    if keep_data and purge:
        print_error("--keep-data and --purge contradict each other. Give one of them.")
        raise typer.Exit(2)
    console, layout = new_console(), Layout.at(state_dir)
    try:
        stopped = stop_cluster(layout)
        if purge:
            purge_state(layout)
        elif not keep_data:
            delete_data(layout)
    except LocalClusterError as error:
        print_error(error)
        raise typer.Exit(1) from None
    console.print("Stopped." if stopped else "Nothing was running.")
