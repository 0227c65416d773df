"""Ten thousand finished Tasks: do they slow a new one down, and how soon is a restarted service ready with them?

They are really run, one in five with a tool call whose result has 2 KB, so that everything that a finished Task leaves
behind is there.
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
from benchmarks.product import Product

TASKS = 10_000
_BATCH = 250
_ONE_TOOL: dict[str, Any] = {"turns": 1, "tool": "echo__text", "arguments": {"size": 2048}}
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
    await _run_many(product, tasks)
    after = await _measure(product, "many")
    return ScaleFigures(tasks, (before[0], after[0]), (before[1], after[1]), (before[2], after[2]))


async def _measure(product: Product, prefix: str) -> tuple[float, dict[str, float], dict[str, float]]:
    await w.run_tasks(product, f"{prefix}-warm", 10, w.PLAIN)
    plain = await w.latency_ms(product, f"{prefix}-plain", 50, w.PLAIN)
    rss = {name: psutil.Process(pid).memory_info().rss / 2**20 for name, pid in product.pids().items()}
    ready = {name: await _seconds_to_ready(product, name) for name in product.pids()}
    return plain, rss, ready


async def _run_many(product: Product, tasks: int) -> None:
    for start in range(0, tasks, _BATCH):
        order = _ONE_TOOL if start // _BATCH % 5 == 0 else w.PLAIN
        await w.run_tasks(product, f"many{start}", min(_BATCH, tasks - start), order)


async def _seconds_to_ready(product: Product, name: str) -> float:
    old = product.pids()[name]
    began = time.monotonic()
    os.kill(old, signal.SIGKILL)
    async with asyncio.timeout(_READY_WITHIN), aiohttp.ClientSession() as session:
        while not await _is_ready(session, product.port(name)):  # noqa: ASYNC110 - another process's endpoint
            await asyncio.sleep(0.02)
    seconds = time.monotonic() - began
    await product.refresh()
    assert product.pids()[name] != old
    return seconds


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
