"""One round: Tasks in flight, deeds one after another, then the verdict that the chaos sweep gives, too."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

from tests.chaos.exposure import Exposure, find_exposure
from tests.chaos.history import History
from tests.chaos.journal import Journal
from tests.chaos.load import Load, create_agent
from tests.chaos.round import drain, list_objects, running_server
from tests.chaos.until import until
from tests.chaos.verdict import Verdict, judge
from tests.chaos.witness import read_witness
from tests.containers.deeds import Deed, has_moved
from tests.containers.product import LOGS, PYTHON, SOURCES, Product

from kubechain_common.api.v1alpha1 import Task, TaskRunToolCall
from kubechain_common.kube.client import KubeClient

IN_FLIGHT = 12
BREATH_SECONDS = 0.5
MOVING_SECONDS = 30.0
"""Tasks move again after a deed, and a moment later the next one finds something in flight."""


@dataclass(frozen=True)
class Outcome:
    """``pause`` is the longest time, in seconds, that any Task stood still."""

    verdict: Verdict
    exposure: Exposure
    journal: Journal
    pause: float


async def run_round(
    product: Product, kube: KubeClient, namespace: str, deeds: Sequence[Deed], *, gentle: bool = False
) -> Outcome:
    """All Tasks of the round have ended when it returns, or stand still for good."""
    directory = product.logs / namespace
    directory.mkdir()
    directory.chmod(0o777)
    tool_log, llm_log, people_log = (directory / f"{who}.jsonl" for who in ("tools", "llm", "people"))
    tools = [PYTHON, f"{SOURCES}/chaos/servers/tools.py", f"{LOGS}/{namespace}/tools.jsonl"]
    journal, history = Journal(), History()
    await kube.request("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace}})
    with running_server("llm", llm_log) as llm_url, running_server("people", people_log) as people_url:
        let_in = product.place.let_in
        await create_agent(kube, namespace, let_in(llm_url), let_in(people_url), tools)
        load = Load(kube, namespace, history, random.Random(namespace), IN_FLIGHT)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(history.follow(kube, namespace).run())
            await disturb(product, journal, history, load, deeds)
            await drain(history)
            watching.cancel()
        tasks = {task["metadata"]["name"]: task for task in await list_objects(kube, Task, namespace)}
        children = await list_objects(kube, TaskRunToolCall, namespace)
    await kube.request("DELETE", f"/api/v1/namespaces/{namespace}")
    witness = read_witness(tool_log, llm_log, people_log)
    verdict = judge(
        load.orders,
        tasks,
        children,
        witness,
        journal.disruptions,
        history.illegal,
        answered=history.answered,
        gentle=gentle,
    )
    return Outcome(verdict, find_exposure(journal.disruptions, witness), journal, history.longest_pause)


async def disturb(product: Product, journal: Journal, history: History, load: Load, deeds: Sequence[Deed]) -> None:
    enough, mended = asyncio.Event(), time.time()
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(enough))
        for deed in deeds:
            await until(partial(has_moved, history, mended), MOVING_SECONDS)
            await asyncio.sleep(BREATH_SECONDS)
            await deed.do(product, journal, history)
            mended = time.time()
        enough.set()


async def check_round(
    product: Product, kube: KubeClient, namespace: str, deeds: Sequence[Deed], *, gentle: bool = False
) -> Outcome:
    """A round that must have no anomaly."""
    try:
        outcome = await run_round(product, kube, namespace, deeds, gentle=gentle)
    except Exception as error:
        error.add_note(product.tail_logs())
        raise
    verdict = outcome.verdict
    print(f"{verdict}\n{outcome.exposure}\nlongest pause: {outcome.pause:.1f} s")
    for what in outcome.journal.disruptions:
        print(f"{what.target} {what.kind}: ready again after {(what.until or inf) - what.at:.1f} s")
    assert len(outcome.journal.disruptions) == len(deeds)
    assert verdict.tasks > 0
    assert verdict.calls > 0
    assert not verdict.anomalies, f"{verdict.anomalies}\n{product.tail_logs()}"
    return outcome
