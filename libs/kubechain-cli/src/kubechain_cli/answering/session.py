"""One command that answers or looks: which cluster, which errors end it, and with which exit code."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import typer

from kubechain_cli.answering.errors import AnswerError
from kubechain_cli.console import print_error
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.taskrun.cluster import use_local_cluster
from kubechain_cli.taskrun.errors import RunError
from kubechain_cli.taskrun.terminal import printable
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import KubeError

INTERRUPTED = 130


def run_session(work: Callable[[KubeClient], Awaitable[None]]) -> None:
    """Do the work with the cluster of KUBECONFIG, else the local one. Raises typer.Exit when it fails."""

    async def connected() -> None:
        async with KubeClient.connect("kubechain-cli") as kube:
            await work(kube)

    use_local_cluster(Layout.at(None), os.environ)
    try:
        asyncio.run(connected())
    except (AnswerError, RunError) as error:
        print_error(printable(str(error)))
        raise typer.Exit(error.exit_code) from None
    except KubeError as error:
        print_error(printable(str(error)))
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
