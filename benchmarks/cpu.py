"""Where the time goes: CPU time per Task, by process.

Wall clock depends on what else the machine does; CPU seconds are what the next Task costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import psutil

from benchmarks.product import Product

_EVENTS_AFTERWARDS = 22.0
"""Seconds in which the Events of a burst are written, which belong to its Tasks. What the
processes use in that time anyway is counted too: about a tenth of a Task with 3 tool turns."""


async def cpu_ms_per_task(product: Product, count: int, work: Callable[[], Awaitable[object]]) -> dict[str, float]:
    """CPU milliseconds that each process spends on one of the ``count`` Tasks of ``work``."""
    before = _read(product)
    await work()
    await asyncio.sleep(_EVENTS_AFTERWARDS)
    return {name: (seconds - before.get(name, 0.0)) * 1000 / count for name, seconds in _read(product).items()}


def _read(product: Product) -> dict[str, float]:
    """Seconds since each process began. What mcp-host has started are the MCP servers."""
    seconds = {}
    for name, pid in product.all_pids().items():
        process = psutil.Process(pid)
        seconds[name] = _seconds(process)
        if name == "mcp-host":
            seconds["MCP servers"] = sum(_seconds(child) for child in process.children(recursive=True))
    return seconds


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def render_cpu(columns: Mapping[str, Mapping[str, float]]) -> str:
    """A Markdown table of processes, the busiest first; one column for each kind of Task."""
    names = sorted(next(iter(columns.values())), key=lambda name: -max(c[name] for c in columns.values()))
    lines = [f"| CPU ms per Task | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    lines += [f"| {name} | {' | '.join(f'{c[name]:.1f}' for c in columns.values())} |" for name in names]
    lines.append(f"| **together** | {' | '.join(f'**{sum(c.values()):.1f}**' for c in columns.values())} |")
    return "\n".join(lines)
