"""Tasks that use a tool, and a witness of what the tool did that no pod's end takes away."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from tests.e2e.support import manifests
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.kubectl import Kubectl
from tests.e2e.support.scripts import count_turns

from kubechain_cli.scripted_llm import ScriptedServer
from kubechain_common.testing.eventually import eventually

SERVERS = Path(__file__).resolve().parents[1] / "servers"
AT_ONCE = 6
Call = tuple[str, int, int]
"""(task, turn, index)."""


@dataclass
class Notes:
    """What the tool told."""

    events: list[dict[str, Any]] = field(default_factory=list)

    def build_app(self) -> web.Application:
        async def handle(request: web.Request) -> web.Response:
            self.events.append(await request.json())
            return web.Response()

        app = web.Application()
        app.router.add_post("/", handle)
        return app

    def count(self, event: str) -> Counter[Call]:
        return Counter((e["task"], e["turn"], e["index"]) for e in list(self.events) if e["event"] == event)


@dataclass
class Load:
    """Tasks of one namespace; each has ``turns`` turns of ``parallel`` calls that take ``ms`` milliseconds."""

    kubectl: Kubectl
    turns: int
    parallel: int
    ms: int
    notes: Notes = field(default_factory=Notes)
    names: list[str] = field(default_factory=list)

    def prepare(self, servers: BackgroundLoop) -> None:
        """An Agent whose tool notes its executions."""
        url = servers.serve(self.notes.build_app()) + "/"
        llm = servers.enter(ScriptedServer(count_turns("noting__count"), servers.host))
        code = (SERVERS / "noting_server.py").read_text()
        self.kubectl.apply(
            manifests.secret("openai", OPENAI_API_KEY="sk-load"),
            manifests.llm(llm.url),
            manifests.stdio_server("noting", "python3", "-c", code, url),
            manifests.agent(servers=["noting"]),
        )
        self.kubectl.wait("agent/my-assistant", timeout=60)

    def start(self, count: int) -> None:
        """So many more Tasks."""
        order = {"turns": self.turns, "parallel": self.parallel, "ms": self.ms, "llm_ms": 50}
        names = [f"task-{len(self.names) + number:03}" for number in range(count)]
        self.kubectl.apply(*(manifests.task(name, json.dumps({"task": name, **order})) for name in names))
        self.names += names

    def run_during(self, deed: Callable[[], None], timeout: float) -> list[str]:
        """Do it while some Tasks are always on their way, and wait for all of them: their names.

        Raises what the deed raises.
        """
        before = len(self.names)

        def is_done() -> bool:
            if len(self.names) - self.count_ended() < AT_ONCE:
                self.start(AT_ONCE)
            return doing.done()

        self.start(AT_ONCE)
        noted = len(self.notes.events)
        eventually(lambda: len(self.notes.events) > noted, timeout, what="a call that runs")
        with ThreadPoolExecutor(1) as thread:
            doing = thread.submit(deed)
            eventually(is_done, timeout, what="the deed done", interval=0.2)
            doing.result()
        eventually(lambda: self.count_ended() == len(self.names), timeout, what="every Task ended", interval=0.2)
        return self.names[before:]

    def count_ended(self) -> int:
        return sum(task.get("status", {}).get("phase") in ("FinalAnswer", "Failed") for task in self.list_tasks())

    def list_tasks(self) -> list[dict[str, Any]]:
        return self.kubectl.list("task")

    def assert_done_once(self, names: list[str]) -> None:
        """Every Task has its answer, and every call ran once, from start to end."""
        phases = {task["metadata"]["name"]: task["status"]["phase"] for task in self.list_tasks()}
        assert {name: phases[name] for name in names if phases[name] != "FinalAnswer"} == {}
        every = {
            (name, turn, index) for name in names for turn in range(1, self.turns + 1) for index in range(self.parallel)
        }
        told = {tuple(call["spec"]["toolCallId"].split("_")[1:]): call["status"] for call in self.list_calls()}
        statuses = {call: told[tuple(map(str, call))] for call in every}
        ends, starts = self.notes.count("end"), self.notes.count("start")
        assert {call: starts[call] for call in every if starts[call] > 1} == {}, "ran more than once"
        lost = {call: statuses[call] for call in every if ends[call] != 1}
        assert not lost, f"did not run: {lost}"
        failed = {call: statuses[call] for call in every if statuses[call]["phase"] != "Succeeded"}
        assert not failed, f"ran and failed: {failed}"

    def list_calls(self) -> list[dict[str, Any]]:
        return self.kubectl.list("taskruntoolcall")
