"""The walk through the tutorial: its stages, and in each the commands that are typed. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from kubechain_cli.demo import tutorial
from kubechain_cli.demo.backend import Backend

TASK_EVENTS = ("get", "events", "--field-selector", "involvedObject.kind=Task", "--sort-by=.lastTimestamp")
OUTPUT = "jsonpath={.status.output}"


@dataclass(frozen=True)
class Command:
    """A command, of kubectl unless said otherwise. It is repeated until it prints ``until``, if that is given.

    ``about`` is the object to describe, ``service`` the log to show, when it fails.
    """

    args: tuple[str, ...]
    shown: str
    program: str = "kubectl"
    stdin: str = ""
    until: str = ""
    about: str = ""
    service: str = ""
    timeout: float = 30.0


@dataclass(frozen=True)
class Stage:
    """A part of the walk that gets a heading and is timed."""

    title: str
    story: str
    commands: tuple[Command, ...]


@dataclass(frozen=True)
class Surroundings:
    """What the walk depends on: who answers, where, and which page is fetched."""

    backend: Backend
    base_url: str | None
    page_url: str
    local_page: bool


def kubectl(*args: str) -> Command:
    """Any kubectl command, shown as it would be typed."""
    return Command(args, shlex.join(("kubectl", *args)))


def apply(yaml: str) -> Command:
    """``kubectl apply`` of a text on standard input, which is shown as well."""
    return Command(("apply", "-f", "-"), f"kubectl apply -f - <<EOF\n{yaml}EOF", stdin=yaml)


def kubechain(*args: str) -> Command:
    """A command of ours."""
    return Command(args, shlex.join(("kubechain", *args)), program="kubechain")


def shell(line: str, **more: str) -> Command:
    """A line for the shell, as it would be typed."""
    return Command(("-c", line), line, program="sh", **more)  # type: ignore[arg-type]


def wait_for(condition: str, about: str, service: str, seconds: int) -> Command:
    """``kubectl wait``, with the means to say why it was in vain."""
    args = ("wait", f"--for=condition={condition}", about, f"--timeout={seconds}s")
    return Command(args, shlex.join(("kubectl", *args)), about=about, service=service, timeout=seconds + 10.0)


def create_secret(backend: Backend, key: str) -> Command:
    """The command that makes the Secret. The key goes through standard input: in the arguments every user of the
    machine could read it.
    """
    args = ("create", "secret", "generic", backend.secret, f"--from-file={backend.key_name}=/dev/stdin")
    shown = f'printf %s "${backend.key_name}" | {shlex.join(("kubectl", *args))}'
    return Command(args, shown, stdin=key)


def build_stages(where: Surroundings, key: str) -> tuple[Stage, ...]:
    """The whole walk."""
    return (
        _llm_stage(where, key),
        _agent_stage(where),
        _hello_stage(),
        _tool_stage(where),
        _fetch_stage(where),
        _approval_stage(where),
    )


def _llm_stage(where: Surroundings, key: str) -> Stage:
    backend = where.backend
    story = "An LLM is a provider, the key to it (in a Secret) and parameters."
    if backend.scripted:
        story += f"\nIts baseUrl is the scripted stand-in; the key is made up: {backend.key_name}={key}"
    return Stage(
        "LLM",
        story,
        (
            create_secret(backend, key),
            apply(tutorial.build_llm(backend, where.base_url)),
            wait_for("Ready", f"llm/{backend.llm}", "llm-gateway", 30),
            kubectl("get", "llm"),
            kubectl("get", "llm", "-o", "wide"),
            kubectl("describe", "llm"),
        ),
    )


def _agent_stage(where: Surroundings) -> Stage:
    return Stage(
        "Agent",
        "An Agent is an LLM with a system prompt, and later with tools.",
        (
            apply(tutorial.build_agent(where.backend.llm, with_fetch=False)),
            wait_for("Ready", "agent/my-assistant", "task-controller", 15),
            kubectl("get", "agent"),
            kubectl("get", "agent", "-o", "wide"),
            kubectl("describe", "agent"),
        ),
    )


def _hello_stage() -> Stage:
    return Stage(
        "Task hello-world-1",
        "A Task is a message to an Agent, and keeps the whole conversation.",
        (
            apply(tutorial.HELLO_TASK),
            wait_for("Complete", "task/hello-world-1", "task-controller", 60),
            kubectl("get", "task"),
            kubectl("describe", "task", "hello-world-1"),
            kubectl("get", "task", "-o", "jsonpath={.items[*].status.output}"),
        ),
    )


def _tool_stage(where: Surroundings) -> Stage:
    story = "An MCPServer brings tools. The first time, uvx gets this one from the package index, which takes seconds."
    if where.local_page:
        story += "\n--allow-private-ips because the page that it will fetch is on this machine (see below)."
    return Stage(
        "MCPServer fetch",
        story,
        (
            apply(tutorial.build_fetch_server(local_page=where.local_page)),
            wait_for("Ready", "mcpserver/fetch", "mcp-host", 120),
            kubectl("get", "mcpserver"),
            kubectl("describe", "mcpserver", "fetch"),
            apply(tutorial.build_agent(where.backend.llm, with_fetch=True)),
            wait_for("Ready", "agent/my-assistant", "task-controller", 15),
        ),
    )


def _fetch_stage(where: Surroundings) -> Stage:
    story = "Now a Task that needs the tool: a turn of the LLM, a tool call, and a turn with its result."
    if where.local_page:
        story += "\nhttps://swapi.dev cannot be reached from here, so the demo serves the same JSON on this machine."
    return Stage(
        "Task fetch-task",
        story,
        (
            apply(tutorial.build_fetch_task(where.page_url)),
            wait_for("Complete", "task/fetch-task", "task-controller", 90),
            kubectl(*TASK_EVENTS),
            kubectl("get", "taskruntoolcall"),
            kubectl("get", "task", "fetch-task", "-o", OUTPUT),
            kubectl("describe", "task", "fetch-task"),
        ),
    )


def _approval_stage(where: Surroundings) -> Stage:
    calls = ("get", "taskruntoolcall", "-l", f"kubechain.humanlayer.dev/taskruntoolcall={tutorial.APPROVED_TASK}")
    awaited = Command(
        (*calls, "-o", "wide"),
        shlex.join(("kubectl", *calls, "-o", "wide")),
        until="AwaitingHumanApproval",
        about=f"task/{tutorial.APPROVED_TASK}",
        service="toolcall-controller",
    )
    return Stage(
        "Human approval",
        "A tool call can wait for a person, for weeks if need be: here every call of the fetch server does. A channel\n"
        "of type inbox needs no third party: what waits is in `kubechain inbox`, on the inbox page, and in kubectl.",
        (
            apply(tutorial.INBOX_CHANNEL),
            wait_for("Ready", "contactchannel/inbox", "human-bridge", 15),
            apply(tutorial.build_fetch_server(local_page=where.local_page, approval="inbox")),
            wait_for("Ready", "mcpserver/fetch", "mcp-host", 30),
            apply(tutorial.build_approved_task(where.page_url)),
            awaited,
            kubectl("get", "task", tutorial.APPROVED_TASK),
            kubechain("inbox"),
            shell(f'kubechain approve "$({shlex.join(("kubectl", *calls, "-o", "name"))})" --comment "go ahead"'),
            wait_for("Complete", f"task/{tutorial.APPROVED_TASK}", "task-controller", 90),
            kubectl("get", "task", tutorial.APPROVED_TASK, "-o", OUTPUT),
            kubectl(*calls, "-o", "jsonpath={.items[*].spec.decision}"),
        ),
    )
