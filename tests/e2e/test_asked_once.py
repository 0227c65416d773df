"""human-bridge and toolcall-controller die again and again while a hundred people are asked and answer.

Each person is asked once, each approved call runs once, and no rejected one does. Half of the people are reached
through HumanLayer, half through a webhook. The witnesses are HumanLayer's side of the API, the program behind the
webhook, and the MCP servers' own log. A failure names the seed: KUBECHAIN_CHAOS_SEED kills in the same moments again,
as they are counted by what the witnesses have seen.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.humanlayer import API_KEY, HumanLayer
from tests.e2e.support.people import Webhook
from tests.e2e.support.scripts import calls
from tests.e2e.support.workspace import ToolLog, Workspace, tool_messages

from kubechain_cli.scripted_llm import ChatMessage, Reply, ToolSpec
from kubechain_common.testing.eventually import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240, func_only=True)]

SEED = os.environ.get("KUBECHAIN_CHAOS_SEED") or str(random.SystemRandom().randrange(10**6))

TASKS = 100
ROADS = ("asked", "hooked")
"""The MCPServers, by how the people are reached whom their calls wait for: HumanLayer, and a webhook."""
KILLED = ("human-bridge", "toolcall-controller")
KILLS = 20
KILL_SECONDS = 40.0
"""No more kills after that: a busy machine takes long to start a process again."""
SECRET = "a-secret-of-the-program"
NO = "Not today"
MOVES_WITHIN = 40.0
FINISH_SECONDS = 90.0


class People:
    """Those of both roads, and whom they have answered. Tasks of an odd number are rejected."""

    def __init__(self, servers: BackgroundLoop) -> None:
        self.humanlayer = HumanLayer()
        self.webhook = Webhook(SECRET)
        self.humanlayer_url = servers.serve(self.humanlayer.build_app())
        self.webhook_url = servers.serve(self.webhook.build_app()) + "/ask"
        self.answered = set[str]()

    def asked(self) -> dict[str, str]:
        """The Task that each request is about, by the request's name outside."""
        by_api = {i: call["spec"]["kwargs"]["task"] for i, call in list(self.humanlayer.function_calls.items())}
        return by_api | {told["callId"]: json.loads(told["arguments"])["task"] for told in list(self.webhook.told)}

    def answer(self, part: float, rng: random.Random) -> None:
        """As many of those who were asked and have not answered yet."""
        for call_id, task in self.asked().items():
            if call_id not in self.answered and rng.random() < part and self._answer(call_id, is_approved(task)):
                self.answered.add(call_id)

    def _answer(self, call_id: str, approved: bool) -> bool:
        if call_id in self.humanlayer.function_calls:
            if approved:
                self.humanlayer.approve(call_id)
            else:
                self.humanlayer.reject(call_id, NO)
            return True
        told = next(told for told in self.webhook.told if told["callId"] == call_id)
        try:
            status, text = self.webhook.answer(told, approved=approved, comment="" if approved else NO)
        except (URLError, ConnectionError, TimeoutError):
            return False  # the bridge is dead at the moment
        assert status in (200, 409, 503), text
        return status != 503


def is_approved(task: str) -> bool:
    return int(task.rpartition("-")[2]) % 2 == 0


def one_call(messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]) -> Reply:
    """The script: a call of the server that the order names, then what the call said."""
    if messages[-1].role == "tool":
        return Reply(messages[-1].text)
    order = json.loads(messages[-1].text)
    return calls((f"{order['server']}__count", {"task": order["task"], "turn": 1, "index": 0, "ms": 0}))


def apply_guarded_agent(workspace: Workspace, people: People, folder: Path) -> ToolLog:
    log = ToolLog(folder / "counting.jsonl")
    key = {"secretKeyRef": {"name": "people", "key": "KEY"}}
    secret = {"secretKeyRef": {"name": "people", "key": "SECRET"}}
    asked = {
        "type": "email",
        "apiKeyFrom": key,
        "humanLayer": {"baseUrl": people.humanlayer_url},
        "email": {"address": "approver@example.com"},
    }
    hooked = {"type": "webhook", "webhook": {"url": people.webhook_url, "signingSecretFrom": secret}}
    workspace.kubectl.apply(
        manifests.secret("people", KEY=API_KEY, SECRET=SECRET),
        manifests.build("ContactChannel", "asked", asked),
        manifests.build("ContactChannel", "hooked", hooked),
        *(
            manifests.own_server(road, "counting_server.py", str(log.path), approvalContactChannel={"name": road})
            for road in ROADS
        ),
    )
    workspace.apply_agent(workspace.serve_llm(one_call), servers=ROADS)
    return log


def test_a_hundred_people_are_asked_once_and_every_approved_call_runs_once(
    workspace: Workspace, servers: BackgroundLoop, tmp_path: Path
) -> None:
    print(f"seed {SEED}")
    rng, people = random.Random(SEED), People(servers)
    log = apply_guarded_agent(workspace, people, tmp_path)
    names = [f"task-{n:03d}" for n in range(TASKS)]
    roads = {name: ROADS[n // 2 % 2] for n, name in enumerate(names)}
    orders = [manifests.task(name, json.dumps({"task": name, "server": roads[name]})) for name in names]
    workspace.kubectl.apply(*orders)

    def progress() -> int:
        """How many were asked, how many calls have run, and how many people have said something."""
        return len(people.asked()) + len(log.of("start")) + len(people.answered)

    kills, last, end = Counter[str](), dict[str, int](), time.monotonic() + KILL_SECONDS
    for moment in sorted(rng.sample(range(1, TASKS * 2), KILLS)):

        def has_come(moment: int = moment) -> bool:
            people.answer(0.05, rng)
            return progress() >= moment

        eventually(has_come, MOVES_WITHIN, what=f"moment {moment}")
        if time.monotonic() > end:
            break
        service = rng.choice(KILLED)
        last[service] = workspace.cluster.kill_again(service, last.get(service))
        kills[service] += 1

    def are_done() -> bool:
        people.answer(1.0, rng)
        tasks = workspace.kubectl.list("task")
        return all(task.get("status", {}).get("phase") in ("FinalAnswer", "Failed") for task in tasks)

    eventually(are_done, FINISH_SECONDS, what=lambda: f"the end of all Tasks: {count_states(workspace)}", interval=0.5)
    assert set(kills) == set(KILLED)
    judge(workspace, people, log, names)
    again = len(people.webhook.told) - len({told["callId"] for told in people.webhook.told})
    print(f"{TASKS} approvals, killed {dict(kills)}; {again} webhooks sent again under their id")


def judge(workspace: Workspace, people: People, log: ToolLog, names: Sequence[str]) -> None:
    approved = sorted(name for name in names if is_approved(name))
    tasks = {task["metadata"]["name"]: task for task in workspace.kubectl.list("task")}
    said = {name: tool_messages(task) for name, task in tasks.items()}
    assert said == {name: [f"counted {name} 1 0" if is_approved(name) else NO] for name in names}
    assert {task["status"]["phase"] for task in tasks.values()} == {"FinalAnswer"}

    # One request for each Task, whatever its road; HumanLayer was never sent one twice.
    assert sorted(people.asked().values()) == sorted(names)
    created = Counter(seen.body["call_id"] for seen in people.humanlayer.posts())
    assert created == dict.fromkeys(people.humanlayer.function_calls, 1)
    # A program can not be asked what it was told: it is told again, under the same id, and that it is so.
    seen = set[str]()
    for told in people.webhook.told:
        assert told["again"] or told["callId"] not in seen
        seen.add(told["callId"])

    assert sorted(task for task, _ in log.of("start")) == approved
    assert sorted(task for task, _ in log.of("end")) == approved
    phases = Counter(call["status"]["phase"] for call in workspace.kubectl.list("taskruntoolcall"))
    assert phases == {"Succeeded": len(approved), "ToolCallRejected": TASKS - len(approved)}


def count_states(workspace: Workspace) -> dict[str, Any]:
    found = workspace.kubectl.list("task") + workspace.kubectl.list("taskruntoolcall")
    states = Counter(f"{o['kind']}: {o.get('status', {}).get('statusDetail')}" for o in found)
    return dict(states)
