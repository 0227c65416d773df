"""A namespace of a test's own, and the objects that most tests begin with."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.e2e.support import manifests
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.cluster import Cluster
from tests.e2e.support.hanging_llm import HangingLLM
from tests.e2e.support.kubectl import Kubectl
from tests.e2e.support.scripts import count_turns

from kubechain_cli.scripted_llm import Script, ScriptedServer


class Workspace:
    """One namespace; ``kubectl`` works in it. ``key`` is an LLM key that nobody else has."""

    def __init__(self, cluster: Cluster, servers: BackgroundLoop, namespace: str) -> None:
        self.cluster = cluster
        self.kubectl = Kubectl(cluster.kubeconfig, namespace)
        self.namespace = namespace
        self.key = self.new_secret("sk-e2e")
        self._servers = servers

    def new_secret(self, prefix: str) -> str:
        """A random value that must never show up anywhere."""
        value = f"{prefix}-{uuid4().hex}"
        self.cluster.secrets.add(value)
        return value

    def serve_llm(self, script: Script, *, require_key: str | None = None) -> ScriptedServer:
        """A scripted LLM until the end of the module."""
        return self._servers.enter(ScriptedServer(script, require_key=require_key))

    def hang_llm(self) -> HangingLLM:
        """An LLM that never answers, until the end of the module."""
        return self._servers.enter(HangingLLM())

    def apply_agent(self, llm: ScriptedServer | HangingLLM, servers: Sequence[str] = (), *, wait: bool = True) -> None:
        """Secret, LLM and Agent ``my-assistant`` with the tools of these MCPServers."""
        self.kubectl.apply(
            manifests.secret("openai", OPENAI_API_KEY=self.key),
            manifests.llm(llm.url),
            manifests.agent(servers=servers),
        )
        if wait:
            self.kubectl.wait("agent/my-assistant", timeout=60)

    def apply_counting_agent(self, folder: Path, **server: Any) -> ToolLog:
        """Agent ``my-assistant`` that has MCPServer ``counting`` count, as its Tasks order."""
        log = ToolLog(folder / "counting.jsonl")
        self.kubectl.apply(manifests.own_server("counting", "counting_server.py", str(log.path), **server))
        self.apply_agent(self.serve_llm(count_turns("counting__count")), servers=["counting"])
        return log

    def apply_inbox(self, name: str, **spec: Any) -> None:
        """ContactChannel ``name`` of type inbox, ready for use."""
        self.kubectl.apply(manifests.build("ContactChannel", name, {"type": "inbox", **spec}))
        self.kubectl.wait(f"contactchannel/{name}")

    def run_task(self, name: str, message: str, *, timeout: float = 30.0) -> dict[str, Any]:
        """The finished Task."""
        self.kubectl.apply(manifests.task(name, message))
        return self.kubectl.finish(name, timeout=timeout)

    def kill(self, service: str) -> None:
        """kill -9; the supervisor starts it again, and the test goes on once it is back."""
        pid = self.cluster.process(service)["pid"]
        os.kill(pid, signal.SIGKILL)
        self.cluster.wait_restarted(service, pid)

    def calls_of(self, task: str) -> list[dict[str, Any]]:
        """The Task's TaskRunToolCalls by name, which is call order within a turn."""
        label = f"kubechain.humanlayer.dev/taskruntoolcall={task}"
        return sorted(self.kubectl.list("taskruntoolcall", "-l", label), key=lambda c: str(c["metadata"]["name"]))


UNTIL_OPEN = -1
"""The ``ms`` of a call that ends once its ``ToolLog`` is told to ``open``."""


@dataclass(frozen=True)
class ToolLog:
    """What the counting server noted about its executions."""

    path: Path

    def of(self, event: str) -> list[tuple[str, int]]:
        """(task, index) of each execution with this event, in order."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [(e["task"], e["index"]) for e in map(json.loads, lines) if e["event"] == event]

    def open(self) -> None:
        """Let go of the calls that take ``UNTIL_OPEN``."""
        Path(f"{self.path}.open").touch()

    def highest(self) -> int:
        """How many ran at once at most."""
        running = highest = 0
        for line in self.path.read_text().splitlines():
            running += 1 if json.loads(line)["event"] == "start" else -1
            highest = max(highest, running)
        return highest


def reason_of(task: dict[str, Any]) -> str:
    """Why the Task failed."""
    return next(str(c["reason"]) for c in task["status"]["conditions"] if c["type"] == "Failed")


def tool_messages(task: dict[str, Any]) -> list[str]:
    """What the LLM read of its tools, in the order of the window."""
    return [m.get("content", "") for m in task["status"]["contextWindow"] if m["role"] == "tool"]
