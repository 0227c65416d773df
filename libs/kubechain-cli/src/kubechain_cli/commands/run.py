"""``kubechain run``: create a Task, follow it to its end, print the answer.

Exit codes: 0 the Task has its final answer; 1 it failed, or the cluster did not answer; 2 the command line asks for
something that is not there; 124 timeout; 130 Ctrl-C. After the last two the Task goes on in the cluster.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import dataclass
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from kubechain_cli.console import print_error
from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.taskrun.cluster import find_nats_url, use_local_cluster
from kubechain_cli.taskrun.errors import RunError, TaskTimeoutError, UnwrittenAnswerError, UsageError
from kubechain_cli.taskrun.following import LiveText, follow_task
from kubechain_cli.taskrun.naming import build_task, build_task_name, new_suffix
from kubechain_cli.taskrun.steps import Step, describe_asking, failure_of
from kubechain_cli.taskrun.terminal import Screen, abandon, new_literal_console, printable, render_step, write_answer
from kubechain_cli.taskrun.transcript import Transcript
from kubechain_common.api.v1alpha1 import Agent, Task
from kubechain_common.api.v1alpha1.task import TaskPhase
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import AlreadyExistsError, InvalidError, KubeError, NotFoundError
from kubechain_common.kube.paths import resource_path
from kubechain_common.messages.live import LLMDelta

INTERRUPTED = 130


@dataclass(frozen=True)
class RunOptions:
    """What the user wants. ``timeout`` in seconds; ``ttl`` in seconds after the end."""

    agent: str
    message: str
    namespace: str = "default"
    name: str | None = None
    follow: bool = False
    timeout: float | None = None
    ttl: int | None = None
    remove: bool = False


def run(
    agent: Annotated[str, typer.Argument(help="Name of the Agent.")],
    message: Annotated[str, typer.Argument(help="What to ask of it; - reads it from standard input.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where Agent and Task live.")] = "default",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show each step, and the text as it is written, on standard error.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the Task.", show_default="AGENT-xxxxxx")] = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="Wait at most this many seconds.")] = None,
    ttl: Annotated[
        int | None, typer.Option(min=0, help="The cluster deletes the Task so many seconds after its end.")
    ] = None,
    rm: Annotated[bool, typer.Option("--rm/--keep", help="Delete the Task once its answer is printed.")] = False,
) -> None:
    """Ask an Agent, and print its answer.

    Talks to the cluster of KUBECONFIG, else to the local one; KUBECHAIN_NATS_URL says where the NATS of the former is,
    by which --follow hears of the text. Exit code 0: answered; 1: failed; 2: no such Agent;
    124: time-out; 130: Ctrl-C.
    """
    console = new_literal_console()
    if message == "-":
        message = sys.stdin.read()
    options = RunOptions(agent, message, namespace, name, follow, timeout, ttl, rm)
    layout = Layout.at(None)
    use_local_cluster(layout, os.environ)
    session = Session(options, console, find_nats_url(layout, os.environ) if follow else None)
    try:
        asyncio.run(session.run())
    except RunError as error:
        print_error(printable(str(error)))
        raise typer.Exit(error.exit_code) from None
    except KubeError as error:
        print_error(printable(str(error)))
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print(session.describe_rest())
        raise typer.Exit(INTERRUPTED) from None


class Session:
    """One run; knows the Task it created, so that an interrupted run can say how to see it."""

    def __init__(self, options: RunOptions, console: Console, nats_url: str | None) -> None:
        self._options = options
        self._screen = Screen(console)
        self._nats_url = nats_url
        self._transcript = Transcript()
        self._turn_shown = 0
        self._task: Task | None = None
        self._began = time.monotonic()

    async def run(self) -> None:
        """Creates the Task, follows it to its end and prints the answer. Raises ``RunError``, ``KubeError``."""
        async with KubeClient.connect("kubechain-cli") as kube:
            self._task = await create_task(kube, self._options)
            self._began = time.monotonic()
            if self._options.follow:
                self._screen.show(f"task {self._task.name} created in namespace {self._task.namespace}")
            live = LiveText(self._nats_url, self._take, self._complete) if self._options.follow else None
            try:
                async with asyncio.timeout(self._options.timeout):
                    finished = await follow_task(kube, self._task, self._show, live)
            except TimeoutError:
                raise TaskTimeoutError(
                    f"no answer within {self._options.timeout:g} s. {self.describe_rest()}"
                ) from None
            except KubeError as error:
                raise RunError(f"{error}. {self.describe_rest()}") from None
            finally:
                self._screen.end_line()
            try:
                self._conclude(finished)
            except UnwrittenAnswerError:
                raise  # the Task has the only copy
            except RunError:
                await self._remove(kube, finished)
                raise
            await self._remove(kube, finished)

    def describe_rest(self) -> str:
        """What goes on without us, and how to see it."""
        if self._task is None:
            return "Interrupted before the Task was created."
        name, namespace = self._task.name, self._task.namespace
        return f"Task {name} goes on. See it with: kubectl describe task {name} --namespace {namespace}"

    def _conclude(self, finished: Task) -> None:
        try:
            conclude(finished, shown=self._transcript.text if self._screen.is_terminal else "")
        except (OSError, UnicodeError) as error:
            abandon(sys.stdout)
            raise UnwrittenAnswerError(
                f"the answer could not be written: {error}. It is in the Task: kubectl get task {finished.name}"
                f" --namespace {finished.namespace} -o jsonpath={{.status.output}}"
            ) from None

    async def _remove(self, kube: KubeClient, finished: Task) -> None:
        if self._options.remove:
            await kube.delete(Task, finished.namespace, finished.name, uid=finished.uid)

    def _show(self, step: Step) -> None:
        if step.kind == "asking" and step.turn <= self._turn_shown:
            return
        self._turn_shown = max(self._turn_shown, step.turn)
        # What waits for somebody is shown in any case: silence would look like a hang.
        if self._options.follow or step.kind == "waiting":
            self._screen.show(render_step(step, time.monotonic() - self._began))

    def _take(self, delta: LLMDelta) -> None:
        growth = self._transcript.take(delta)
        if growth is None:
            return
        if growth.retry:
            self._show(Step("progress", f"the text begins anew (attempt {growth.attempt})"))
        elif growth.begins:
            # The Task may say later that the model is asked, which would come in the midst of its text.
            self._show(describe_asking(delta.turn))
            self._screen.end_line()
        self._screen.write(growth.text)

    def _complete(self, turn: int, content: str) -> None:
        if rest := self._transcript.complete(turn, content):
            self._screen.write(rest)


async def create_task(kube: KubeClient, options: RunOptions) -> Task:
    """Create the Task. Raises ``UsageError`` when there is no such agent, or the Task cannot be as it is wanted."""
    check_options(options)
    try:
        await kube.get(Agent, options.namespace, options.agent)
    except NotFoundError:
        answer = await kube.request("GET", resource_path(Agent, options.namespace))
        raise UsageError(describe_missing_agent(options, [a["metadata"]["name"] for a in answer["items"]])) from None
    except InvalidError as error:
        raise UsageError(str(error)) from None
    name = options.name or build_task_name(options.agent, new_suffix())
    try:
        return await kube.create(build_task(options.namespace, name, options.agent, options.message, options.ttl))
    except AlreadyExistsError:
        raise UsageError(f"Task {name!r} exists already in {options.namespace!r}: choose another --name.") from None
    except InvalidError as error:
        raise UsageError(f"The Task is not valid: {error}") from None
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise UsageError(f"The Task is not valid: {first['loc'][-1]}: {first['msg']}") from None


def check_options(options: RunOptions) -> None:
    """Raise ``UsageError`` for options that no cluster could make sense of."""
    if not options.message.strip():
        raise UsageError("The message is empty.")
    if options.remove and options.ttl is not None:
        raise UsageError("--rm and --ttl exclude each other: choose who deletes the Task.")


def describe_missing_agent(options: RunOptions, present: list[str]) -> str:
    """A sentence that says what is there instead."""
    there = (
        f"There: {', '.join(sorted(present))}."
        if present
        else "There is none; see: kubectl get agents --all-namespaces"
    )
    return f"Agent {options.agent!r} not found in namespace {options.namespace!r}. {there}"


def conclude(task: Task, shown: str = "") -> None:
    """Print the answer, unless the same terminal has ``shown`` it; raises ``RunError`` when there is none."""
    if task.status.phase != TaskPhase.FINAL_ANSWER:
        raise RunError(f"Task {task.name} failed: {failure_of(task)}")
    if not (shown == task.status.output and sys.stdout.isatty()):
        write_answer(task.status.output, sys.stdout)
