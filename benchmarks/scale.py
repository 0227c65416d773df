"""Ten thousand finished Tasks: do they slow a new one down, and how soon is a restarted service ready with them?

They are written as the controllers leave them, one in five with a call whose result has 2 KB, while both controllers
stand still: running them for real would take most of an hour of CPU. The controllers are ended afterwards, so that
what they knew before is gone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
import psutil

from benchmarks import workloads as w
from benchmarks.product import Product, build
from kubechain_common.api.v1alpha1 import Task, TaskRunToolCall
from kubechain_common.kube.client import KubeClient

TASKS = 10_000
_WRITERS = 24
_WITH_CALL = 5
_RESULT = "x" * 2048
_CONTROLLERS = ("task-controller", "toolcall-controller")
_ENDED = "2026-01-01T00:00:00Z"
_READY_WITHIN = 60.0


@dataclass(frozen=True)
class ScaleFigures:
    """What was measured before the Tasks were there, and with them."""

    tasks: int
    plain_ms: tuple[float, float]
    rss_mb: tuple[dict[str, float], dict[str, float]]
    ready_seconds: tuple[dict[str, float], dict[str, float]]
    """From the kill of a service to its next /readyz."""


async def measure_scale(product: Product, tasks: int = TASKS) -> ScaleFigures:
    before = await _measure(product, "few")
    began = time.monotonic()
    await _write_many(product, tasks)
    print(f"{tasks} finished Tasks were written in {time.monotonic() - began:.0f} s")
    after = await _measure(product, "many")
    return ScaleFigures(tasks, (before[0], after[0]), (before[1], after[1]), (before[2], after[2]))


async def _measure(product: Product, prefix: str) -> tuple[float, dict[str, float], dict[str, float]]:
    await w.run_tasks(product, f"{prefix}-warm", 10, w.PLAIN)
    plain = await w.latency_ms(product, f"{prefix}-plain", 50, w.PLAIN)
    rss = {name: psutil.Process(pid).memory_info().rss / 2**20 for name, pid in product.pids().items()}
    ready = {name: await _seconds_to_ready(product, name) for name in product.pids()}
    return plain, rss, ready


async def _write_many(product: Product, tasks: int) -> None:
    for name in _CONTROLLERS:
        os.kill(product.pids()[name], signal.SIGSTOP)
    numbers = iter(range(tasks))

    async def write_some() -> None:
        for number in numbers:
            await _write_finished(product.kube, f"many-{number}", with_call=number % _WITH_CALL == 0)

    async with asyncio.TaskGroup() as group:
        for _ in range(_WRITERS):
            group.create_task(write_some())
    for name in _CONTROLLERS:
        os.kill(product.pids()[name], signal.SIGKILL)
    for name in _CONTROLLERS:
        await _wait_ready(product.port(name))
    await product.refresh()


async def _write_finished(kube: KubeClient, name: str, *, with_call: bool) -> None:
    task = await kube.create(build(Task, name, {"agentRef": {"name": "bench"}, "userMessage": "What is it?"}))
    window: list[dict[str, Any]] = [
        {"role": "system", "content": "You are measured."},
        {"role": "user", "content": "What is it?"},
    ]
    if with_call:
        await _write_call(kube, task)
        function = {"name": "echo__text", "arguments": '{"size": 2048}'}
        window.append({"role": "assistant", "toolCalls": [{"id": "1", "type": "function", "function": function}]})
        window.append({"role": "tool", "toolCallId": "1", "content": _RESULT})
    window.append({"role": "assistant", "content": "done"})
    times = {"startTime": _ENDED, "completionTime": _ENDED}
    said = {"output": "done", "userMsgPreview": "What is it?", "messageCount": len(window), "contextWindow": window}
    ended = {"phase": "FinalAnswer", "ready": True, "status": "Ready", "statusDetail": "final answer", "turn": 1}
    await kube.update_status(task, ended | times | said)


async def _write_call(kube: KubeClient, task: Task) -> None:
    spec = {
        "toolCallId": "1",
        "taskRunRef": {"name": task.name},
        "toolRef": {"name": "echo__text"},
        "toolType": "MCP",
        "target": {"name": "echo", "tool": "text"},
        "arguments": '{"size": 2048}',
    }
    call = build(TaskRunToolCall, f"{task.name}-1-0", spec)
    call.metadata.owner_references.append(task.build_owner_reference())
    call = await kube.create(call)
    ended = {"phase": "Succeeded", "status": "Succeeded", "result": _RESULT}
    await kube.update_status(call, ended | {"startTime": _ENDED, "completionTime": _ENDED})


async def _seconds_to_ready(product: Product, name: str) -> float:
    old = product.pids()[name]
    began = time.monotonic()
    os.kill(old, signal.SIGKILL)
    await _wait_ready(product.port(name))
    seconds = time.monotonic() - began
    await product.refresh()
    assert product.pids()[name] != old
    return seconds


async def _wait_ready(port: int) -> None:
    async with asyncio.timeout(_READY_WITHIN), aiohttp.ClientSession() as session:
        while not await _is_ready(session, port):  # noqa: ASYNC110 - another process's endpoint
            await asyncio.sleep(0.02)


async def _is_ready(session: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


def render_scale(figures: ScaleFigures) -> str:
    """A Markdown table."""
    slower = (figures.plain_ms[1] / figures.plain_ms[0] - 1) * 100
    lines = [
        f"| | no finished Tasks | {figures.tasks} finished Tasks |",
        "|---|---|---|",
        f"| plain Task, p50 | {figures.plain_ms[0]:.1f} ms | {figures.plain_ms[1]:.1f} ms ({slower:+.0f} %) |",
    ]
    for name, seconds in figures.ready_seconds[1].items():
        lines.append(f"| {name}: killed to ready | {figures.ready_seconds[0][name]:.1f} s | {seconds:.1f} s |")
    for name, rss in figures.rss_mb[1].items():
        lines.append(f"| {name}: RSS | {figures.rss_mb[0][name]:.0f} MB | {rss:.0f} MB |")
    return "\n".join(lines)
