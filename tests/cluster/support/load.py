"""Tasks that use a tool, and a witness of what the tool did that no pod's end takes away."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from tests.e2e.support import manifests
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.kubectl import Kubectl
from tests.e2e.support.scripts import count_turns

from kubechain_cli.scripted_llm import ScriptedServer

SERVERS = Path(__file__).resolve().parents[1] / "servers"
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

    def count_ended(self) -> int:
        return sum(task.get("status", {}).get("phase") in ("FinalAnswer", "Failed") for task in self.list_tasks())

    def list_tasks(self) -> list[dict[str, Any]]:
        return self.kubectl.list("task")

    def assert_all_done_once(self) -> None:
        """Every Task has its answer, every call ran from start to end, and none ran twice."""
        unfinished = {
            task["metadata"]["name"]: task["status"].get("statusDetail")
            for task in self.list_tasks()
            if task["status"]["phase"] != "FinalAnswer"
        }
        assert not unfinished, unfinished
        every = [
            (name, turn, index)
            for name in self.names
            for turn in range(1, self.turns + 1)
            for index in range(self.parallel)
        ]
        assert self.notes.count("start") == Counter(every)
        assert self.notes.count("end") == Counter(every)
