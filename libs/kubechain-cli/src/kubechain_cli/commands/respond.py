"""``kubechain respond``: answer a question of an agent.

Exit codes: 0 answered; 1 the call takes no answer now, or not from this user; 2 no such call, or an empty answer.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kubechain_cli.answering.answer import give_answer
from kubechain_cli.answering.errors import BadAnswerError
from kubechain_cli.answering.session import run_session
from kubechain_cli.options import CallName, Namespace
from kubechain_common.kube.client import KubeClient


def respond(
    name: CallName,
    message: Annotated[str, typer.Argument(help="The answer; - reads it from standard input.")],
    namespace: Namespace = "default",
) -> None:
    """Answer the question that a tool call asks."""
    text = sys.stdin.read() if message == "-" else message

    async def work(kube: KubeClient) -> None:
        if not text.strip():
            raise BadAnswerError("The answer is empty.")
        by = await give_answer(kube, namespace, name, "response", {"message": text})
        typer.echo(f"Answered {name.rpartition('/')[2]} as {by}.")

    run_session(work)
