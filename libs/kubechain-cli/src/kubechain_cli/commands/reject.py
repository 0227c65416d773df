"""``kubechain reject``: keep a tool call from running; the model reads the comment.

Exit codes: 0 rejected; 1 the call takes no decision now, or not from this user; 2 no such call.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kubechain_cli.answering.answer import give_answer
from kubechain_cli.answering.session import run_session
from kubechain_cli.options import CallName, Namespace
from kubechain_common.kube.client import KubeClient


def reject(
    name: CallName,
    namespace: Namespace = "default",
    comment: Annotated[str | None, typer.Option(help="Why, or what to do instead: the model reads it.")] = None,
) -> None:
    """Reject a tool call that waits for approval."""
    decision: dict[str, Any] = {"approved": False} | ({"comment": comment} if comment else {})

    async def work(kube: KubeClient) -> None:
        by = await give_answer(kube, namespace, name, "decision", decision)
        typer.echo(f"Rejected {name.rpartition('/')[2]} as {by}.")

    run_session(work)
