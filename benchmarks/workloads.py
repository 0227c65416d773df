"""The workloads, each a measurement of design section 8 (its budgets are in report.py)."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from benchmarks.product import Product, build
from kubechain_common.api.v1alpha1 import Task
from kubechain_common.api.v1alpha1.task import TaskPhase

TASK_WITHIN = 120.0
PLAIN: dict[str, Any] = {"turns": 0}
THREE_TURNS: dict[str, Any] = {"turns": 3, "tool": "echo__echo", "arguments": {"message": "hi"}}
ONE_SECOND: dict[str, Any] = {"turns": 0, "delay_ms": 1000}
BIG_TURNS: dict[str, Any] = {"turns": 210, "tool": "echo__text", "arguments": {"size": 10_240}}


async def run_tasks(product: Product, prefix: str, count: int, order: dict[str, Any], **spec: Any) -> list[Task]:
    """Creates the Tasks at once and waits for all of them; every one must end well."""
    names = [f"{prefix}-{i}" for i in range(count)]
    ended = [product.tasks.expect(name) for name in names]
    async with asyncio.timeout(TASK_WITHIN), asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(product.kube.create(_task(name, order, spec)))
    tasks = [(await asyncio.wait_for(future, TASK_WITHIN))[1] for future in ended]
    bad = [task for task in tasks if task.status.phase != TaskPhase.FINAL_ANSWER or "done" not in task.status.output]
    if bad:
        raise RuntimeError(
            f"{len(bad)} of {count} Tasks did not end well: {bad[0].status.error or bad[0].status.output}"
        )
    return tasks


def _task(name: str, order: dict[str, Any], spec: dict[str, Any]) -> Task:
    return build(Task, name, {"agentRef": {"name": "bench"}, "userMessage": json.dumps(order), **spec})


async def latency_ms(product: Product, prefix: str, count: int, order: dict[str, Any]) -> float:
    """p50 of one Task after another: from the create to the watch event of its FinalAnswer."""
    await settle(product)
    samples = []
    for i in range(count):
        started = asyncio.get_running_loop().time()
        future = product.tasks.expect(f"{prefix}-{i}-0")
        await run_tasks(product, f"{prefix}-{i}", 1, order)
        samples.append((future.result()[0] - started) * 1000)
    return statistics.median(samples)


async def throughput(product: Product, prefix: str, count: int, order: dict[str, Any]) -> float:
    """Tasks per second when ``count`` are created at once."""
    return count / await makespan(product, prefix, count, order)


async def makespan(product: Product, prefix: str, count: int, order: dict[str, Any]) -> float:
    """Seconds until the last of ``count`` Tasks created at once has ended."""
    await settle(product)
    started = time.monotonic()
    await run_tasks(product, prefix, count, order)
    return time.monotonic() - started


async def writes_per_task(product: Product, prefix: str, order: dict[str, Any], count: int = 10) -> float:
    """Writes to the API server per Task, without its own creation and without Events."""
    before = await _count_writes(product)
    await run_tasks(product, prefix, count, order)
    return (await _count_writes(product) - before) / count - 1


async def settle(product: Product) -> None:
    """Returns once the Events of earlier Tasks are written, which wait for a moment without work."""
    before = -1.0
    async with asyncio.timeout(TASK_WITHIN):
        while (now := await _count_writes(product, "events")) != before:
            before = now
            await asyncio.sleep(1.5)


async def _count_writes(product: Product, *resources: str) -> float:
    text = await asyncio.to_thread(read_metrics, product.status["kubeconfig"])
    kinds = [f'resource="{resource}"' for resource in resources or ("tasks", "taskruntoolcalls", "configmaps")]
    verbs = ('verb="POST"', 'verb="PATCH"', 'verb="PUT"', 'verb="DELETE"', 'verb="APPLY"')
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith("apiserver_request_total{")
        and any(k in line for k in kinds)
        and any(v in line for v in verbs)
    )


def read_metrics(kubeconfig: str) -> str:
    """The API server's own counters."""
    command = [str(Path(sys.executable).with_name("kubectl")), "--kubeconfig", kubeconfig, "get", "--raw", "/metrics"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


async def seconds_by_turn(product: Product) -> list[float]:
    """The seconds of every turn of one long Task: from a request at the model to the next one."""
    await settle(product)
    already = len(_request_times(product.llm_log))
    await run_tasks(product, "long", 1, BIG_TURNS, maxTurns=250)
    times = _request_times(product.llm_log)[already:]
    return [later - earlier for earlier, later in pairwise(times)]


def smooth(turns: Sequence[float], turn: int) -> float:
    """The median of the turns around this one (from 1); a single turn tells little."""
    return statistics.median(turns[max(0, turn - 5) : turn + 4])


def _request_times(log: Path) -> list[float]:
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [line["time"] for line in lines if line["path"].endswith("/chat/completions")]


def resident_mb(pids: Sequence[int]) -> float:
    return sum(psutil.Process(pid).memory_info().rss for pid in pids) / 2**20


async def idle_cpu_percent(pids: Sequence[int], seconds: float = 30.0) -> float:
    """CPU of all services together while nothing happens, in percent of one core."""
    processes = [psutil.Process(pid) for pid in pids]
    before = sum(sum(p.cpu_times()[:2]) for p in processes)
    await asyncio.sleep(seconds)
    used = sum(sum(p.cpu_times()[:2]) for p in processes) - before
    return float(used) / seconds * 100
