"""One round: a scenario's fleet in a namespace of its own, Tasks in flight, deeds; then the verdict.

Deeds go on without waiting for what the last one did, so that several processes are dead at a time, but half of the
services are up when the next one comes. When they stop, the Tasks may go on for as long as any of them moves; those
that have not ended when nothing has moved for ``STILL_SECONDS`` are lost.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.cluster import Cluster
from tests.chaos.deeds import Stage
from tests.chaos.evidence import keep_evidence
from tests.chaos.exposure import Exposure, find_exposure
from tests.chaos.fleet import Fleet, running_fleet
from tests.chaos.history import History
from tests.chaos.journal import Journal, write_journal
from tests.chaos.load import Load, create_agent
from tests.chaos.scenario import Scenario
from tests.chaos.until import until
from tests.chaos.verdict import Verdict, judge
from tests.chaos.witness import read_witness

from kubechain_common.api.v1alpha1 import Resource, Task, TaskRunToolCall
from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.paths import resource_path

STILL_SECONDS = 90.0
DRAIN_SECONDS = 600.0
HALF_READY_WITHIN = 20.0
"""How long a deed waits for half of the services to be up, so that a slow machine has something in flight to lose."""
TOOLS = Path(__file__).parent / "servers" / "tools.py"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """A round in figures. ``recovery`` is the longest time that any Task stood still."""

    scenario: str
    seed: str
    seconds: float
    verdict: Verdict
    journal: Journal
    exposure: Exposure
    recovery: float


async def run_round(
    cluster: Cluster, kube: KubeClient, scenario: Scenario, seed: str, directory: Path, seconds: float, in_flight: int
) -> Outcome:
    """``directory`` gets the logs of the witnesses and of the services."""
    await asyncio.to_thread(directory.mkdir, parents=True)
    namespace = directory.name
    tool_log, llm_log, people_log = (directory / f"{who}.jsonl" for who in ("tools", "llm", "people"))
    journal, history, began = Journal(), History(), time.monotonic()
    await kube.request("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace}})
    with running_server("llm", llm_log) as llm_url, running_server("people", people_log) as people_url:
        async with running_fleet(
            cluster, namespace, directory, replicas=scenario.replicas, cuttable=scenario.cuttable
        ) as fleet:
            tools = [sys.executable, str(TOOLS), str(tool_log)]
            await create_agent(kube, namespace, llm_url, people_url, tools)
            load = Load(kube, namespace, history, random.Random(f"{seed} orders"), in_flight)
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(history.follow(kube, namespace).run())
                await _disturb(cluster, fleet, kube, scenario, namespace, journal, load, seed, seconds)
                await drain(history)
                watching.cancel()
            tasks = {t["metadata"]["name"]: t for t in await list_objects(kube, Task, namespace)}
            children = await list_objects(kube, TaskRunToolCall, namespace)
            if history.unfinished:
                await keep_evidence(cluster, directory, tasks, children, history.unfinished)
    await kube.request("DELETE", f"/api/v1/namespaces/{namespace}")
    await asyncio.to_thread(write_journal, directory / "journal.jsonl", journal)
    witness = read_witness(tool_log, llm_log, people_log)
    verdict = judge(
        load.orders,
        tasks,
        children,
        witness,
        journal.disruptions,
        history.illegal,
        answered=history.answered,
        gentle=scenario.gentle,
    )
    exposure = find_exposure(journal.disruptions, witness)
    return Outcome(scenario.name, seed, time.monotonic() - began, verdict, journal, exposure, history.longest_pause)


async def _disturb(
    cluster: Cluster,
    fleet: Fleet,
    kube: KubeClient,
    scenario: Scenario,
    namespace: str,
    journal: Journal,
    load: Load,
    seed: str,
    seconds: float,
) -> None:
    """Tasks and deeds for ``seconds``; returns when everything has been mended and runs again."""
    rng, enough = random.Random(f"{seed} deeds"), asyncio.Event()
    weights, deeds = zip(*scenario.deeds, strict=True)
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(enough))
        stage = Stage(cluster, fleet, kube, namespace, journal, rng, group)
        end = time.monotonic() + seconds
        for deed in scenario.first:
            await asyncio.sleep(scenario.pace)
            await deed(stage)
        while time.monotonic() < end:
            await asyncio.sleep(rng.expovariate(1 / scenario.pace))
            await until(fleet.half_is_ready, HALF_READY_WITHIN)
            await rng.choices(deeds, weights)[0](stage)
        enough.set()


async def drain(history: History) -> None:
    """A busy machine takes its time: what counts is that nothing stands still."""
    began = time.time()
    await until(
        lambda: not history.unfinished or time.time() - max(began, history.last_step) > STILL_SECONDS, DRAIN_SECONDS
    )


async def list_objects(kube: KubeClient, kind: type[Resource], namespace: str) -> list[dict[str, Any]]:
    """As the API server has them, not as our models read them."""
    items: list[dict[str, Any]] = []
    token = ""
    while True:
        page = await kube.list_page(resource_path(kind, namespace), continue_token=token)
        items += page.items
        token = page.continue_token
        if not token:
            return items


@contextmanager
def running_server(name: str, log: Path) -> Iterator[str]:
    """One of the processes outside the product; its URL."""
    command = [sys.executable, "-m", f"tests.chaos.servers.{name}", str(log)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(10)
