"""``kubechain approve``: let a tool call run, with the model's arguments or with others.

Exit codes: 0 approved; 1 the call takes no approval now, or not from this user; 2 no such call, or bad arguments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kubechain_cli.answering.answer import give_answer, read_arguments
from kubechain_cli.answering.errors import BadAnswerError
from kubechain_cli.answering.session import run_session
from kubechain_cli.options import CallName, Namespace
from kubechain_common.kube.client import KubeClient


def approve(
    name: CallName,
    namespace: Namespace = "default",
    comment: Annotated[str | None, typer.Option(help="A remark that stays with the call.")] = None,
    arguments: Annotated[
        str | None,
        typer.Option(help="JSON object, or @FILE with one: the tool gets these arguments instead of the model's."),
    ] = None,
) -> None:
    """Approve a tool call that waits for approval."""

    async def work(kube: KubeClient) -> None:
        by = await give_answer(kube, namespace, name, "decision", build_approval(comment, arguments))
        typer.echo(
            f"Approved {name.rpartition('/')[2]} as {by}{'' if arguments is None else ', with other arguments'}."
        )

    run_session(work)


def build_approval(comment: str | None, arguments: str | None) -> dict[str, Any]:
    """The decision. Raises BadAnswerError."""
    decision: dict[str, Any] = {"approved": True}
    if comment:
        decision["comment"] = comment
    if arguments is not None:
        decision["arguments"] = read_arguments(read_option(arguments))
    return decision


def read_option(value: str) -> str:
    """The text itself, or that of the file after an @. Raises BadAnswerError."""
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadAnswerError(f"--arguments: {value[1:]} can not be read: {error}") from None
