"""Load for several replicas of mcp-host, and what the tools' own logs say about it.

The load builds up behind ``maxConcurrency: 1`` and is let go at once, so that what is measured is how fast it is done,
not how fast it comes.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.support import manifests
from tests.e2e.support.cluster import Cluster
from tests.e2e.support.replicas import read_metrics
from tests.e2e.support.scripts import count_turns
from tests.e2e.support.workspace import Workspace

from kubechain_common.messages.topology import TOOL_REQUESTS
from kubechain_common.testing.eventually import eventually

PER_TASK = 20
"""Calls of one turn."""
SECONDS = 90.0


@dataclass(frozen=True)
class Noted:
    """One execution, as its tool noted it."""

    key: str
    pid: int
    start: float
    end: float | None


class Load:
    """Tasks that have tools called. ``servers`` are MCPServers with a log each."""

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        self.workspace = workspace
        self.kubectl = workspace.kubectl
        self._folder = folder
        self._agents: list[str] = []
        self._tasks: list[str] = []

    def log_of(self, server: str) -> Path:
        return self._folder / f"{server}.jsonl"

    def apply(self, *servers: dict[str, Any], **agent: Any) -> None:
        """The MCPServers, and an Agent of the same name for each."""
        self.kubectl.apply(*servers)
        for server in servers:
            name = server["metadata"]["name"]
            llm = self.workspace.serve_llm(count_turns(f"{name}__count"))
            self.kubectl.apply(
                manifests.secret("openai", OPENAI_API_KEY=self.workspace.key),
                manifests.llm(llm.url, name),
                manifests.agent(name, [name], llmRef={"name": name}, **agent),
            )
        for server in servers:
            self.kubectl.wait(f"agent/{server['metadata']['name']}", timeout=60)

    def limit(self, server: str, calls: int) -> None:
        """maxConcurrency."""
        self.kubectl("patch", "mcpserver", server, "--type=merge", "-p", f'{{"spec": {{"maxConcurrency": {calls}}}}}')

    def begin(
        self, server: str, tasks: int, *, turns: int = 1, parallel: int = PER_TASK, ms: int = 1000, llm_ms: int = 0
    ) -> list[str]:
        """So many Tasks; their names."""
        first = len(self._tasks)
        names = [f"{server}-{first + n:04d}" for n in range(tasks)]
        orders: list[dict[str, Any]] = [
            {"task": name, "turns": turns, "parallel": parallel, "ms": ms, "llm_ms": llm_ms} for name in names
        ]
        self.kubectl.apply(*(manifests.task(o["task"], json.dumps(o), server) for o in orders))
        self._tasks += names
        return names

    def wait_finished(self, names: Sequence[str], seconds: float = SECONDS) -> None:
        """Every Task has its final answer."""

        def unfinished() -> list[tuple[str, str]]:
            tasks = {task["metadata"]["name"]: task.get("status", {}) for task in self.kubectl.list("task")}
            return [(n, tasks[n].get("statusDetail", "")) for n in names if tasks[n].get("phase") != "FinalAnswer"]

        eventually(lambda: not unfinished(), seconds, what=lambda: f"still to finish: {unfinished()}", interval=0.1)

    def noted(self, server: str) -> list[Noted]:
        """Every execution, whatever came of it."""
        log = self.log_of(server)
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        ends = {(e["key"], e["pid"]): e["time"] for e in lines if e["event"] == "end"}
        return [
            Noted(e["key"], e["pid"], e["time"], ends.get((e["key"], e["pid"]))) for e in lines if e["event"] == "start"
        ]

    def highest(self, server: str) -> int:
        """How many ran at a time at most, of those that ended."""
        noted = [n for n in self.noted(server) if n.end is not None]
        steps = sorted([(n.start, 1) for n in noted] + [(n.end or 0.0, -1) for n in noted])
        running = highest = 0
        for _, step in steps:
            running += step
            highest = max(highest, running)
        return highest

    def assert_once_or_unknown(self, names: Sequence[str], server: str) -> Counter[str]:
        """Every call of the Tasks ran once and says so, or its outcome is unknown, and it ran once at most.

        How many calls ended in which way.
        """
        runs = Counter(n.key for n in self.noted(server))
        ended: Counter[str] = Counter()
        wanted = set(names)
        for call in self.kubectl.list("taskruntoolcall"):
            if call["spec"]["taskRunRef"]["name"] not in wanted:
                continue
            key = f"{call['metadata']['namespace']}/{call['metadata']['name']}"
            status = call["status"]
            how = status.get("reason") or status["phase"]
            ended[how] += 1
            assert how in ("Succeeded", "OutcomeUnknown"), f"{key}: {status}"
            assert runs[key] == 1 or (how == "OutcomeUnknown" and runs[key] == 0), f"{key} ran {runs[key]} times"
        return ended


def measure(load: Load, server: str, calls: int, places: int, backlog_url: str) -> float:
    """Calls of a second each that are done per second by so many places, which are all taken: of a queue of so many.

    ``calls`` are whole Tasks: a multiple of PER_TASK.
    """
    assert calls % PER_TASK == 0
    load.limit(server, 1)
    known = len(load.noted(server))
    names = load.begin(server, calls // PER_TASK)
    eventually(
        lambda: read_backlog(backlog_url) + len(load.noted(server)) - known >= calls,
        SECONDS,
        what="all calls in the queue",
    )
    let_go = time.time()
    load.limit(server, 1000)
    load.wait_finished(names)
    eventually(lambda: read_backlog(backlog_url) == 0, 10, what="nothing left")
    late = [n for n in load.noted(server) if n.start >= let_go]
    # Up to the last round in which all places were taken.
    full = len(late) // places * places
    return full / (sorted(n.end or 0.0 for n in late)[full - 1] - min(n.start for n in late))


def read_backlog(url: str) -> float:
    """Tool requests that wait or are worked on, as a replica of mcp-host shows it."""
    name = f'kubechain_backlog_messages{{stream="{TOOL_REQUESTS.name}"}} '
    return next(float(line.removeprefix(name)) for line in read_metrics(url).splitlines() if line.startswith(name))


def url_of(cluster: Cluster, service: str) -> str:
    """Where the cluster's own replica shows its metrics."""
    return f"http://127.0.0.1:{cluster.process(service)['port']}"


@contextmanager
def counting_over_http(name: str, log: Path) -> Iterator[dict[str, Any]]:
    """The MCPServer of a counting server that runs apart."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = manifests.SERVERS / "counting_http_server.py"
    with subprocess.Popen([sys.executable, str(script), str(log), str(port)], stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: _accepts(port), 30, what="the HTTP server")
            yield manifests.http_server(name, f"http://127.0.0.1:{port}/mcp")
        finally:
            process.kill()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
