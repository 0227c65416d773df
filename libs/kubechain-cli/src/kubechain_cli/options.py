"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Output(StrEnum):
    """How a command prints its result."""

    TEXT = "text"
    JSON = "json"


StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        help="Directory of the cluster.",
        show_default="$KUBECHAIN_HOME, else ~/.local/state/kubechain",
    ),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to print the result.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Where the objects live.")]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="All of them.")]
CallName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the tool call, as `kubechain inbox` shows it.")]
