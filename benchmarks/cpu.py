"""Where the time goes: CPU time per Task, by process.

Wall clock depends on what else the machine does; CPU seconds are what the next Task costs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import psutil

from benchmarks.product import Product

_EVENTS_AFTERWARDS = 22.0
"""Seconds in which the Events of a burst are written, which belong to its Tasks."""

_IDLE_FOR = 10.0

ByProcess = Mapping[str, float]
"""CPU time."""


@dataclass(frozen=True)
class CpuPerTask:
    """Milliseconds by process: until the last Task had ended, and with the Events that are written after that."""

    in_the_burst: ByProcess
    with_what_follows: ByProcess


async def idle_cpu_a_second(product: Product) -> ByProcess:
    """What each process uses while nothing happens."""
    before, started = _read(product), time.monotonic()
    await asyncio.sleep(_IDLE_FOR)
    passed = time.monotonic() - started
    return {name: (seconds - before.get(name, 0.0)) / passed for name, seconds in _read(product).items()}


async def cpu_ms_per_task(
    product: Product, count: int, work: Callable[[], Awaitable[object]], idle: ByProcess
) -> CpuPerTask:
    """What one of the ``count`` Tasks of ``work`` costs, beyond what the processes use in that time anyway."""
    before, started = _read(product), time.monotonic()
    await work()
    burst, ended = _read(product), time.monotonic()
    await asyncio.sleep(_EVENTS_AFTERWARDS)
    after, now = _read(product), time.monotonic()
    return CpuPerTask(
        ms_per_task(before, burst, idle, ended - started, count), ms_per_task(before, after, idle, now - started, count)
    )


def ms_per_task(before: ByProcess, after: ByProcess, idle: ByProcess, passed: float, count: int) -> ByProcess:
    """A process that used less than it does when idle has none of it."""
    return {
        name: max(0.0, seconds - before.get(name, 0.0) - idle.get(name, 0.0) * passed) * 1000 / count
        for name, seconds in after.items()
    }


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


def render_cpu(columns: Mapping[str, CpuPerTask]) -> str:
    """A Markdown table of processes, the busiest first; two columns for each kind of Task."""
    figures = {
        f"{kind}, {when}": by_process
        for kind, cpu in columns.items()
        for when, by_process in (("in the burst", cpu.in_the_burst), ("with what follows it", cpu.with_what_follows))
    }
    names = sorted(next(iter(figures.values())), key=lambda name: -max(c[name] for c in figures.values()))
    lines = [
        "Of Tasks that are created at once: until the last one has ended, and with the "
        f"{_EVENTS_AFTERWARDS:.0f} seconds in which their",
        "Events are written. What the processes use when idle is taken off.",
        "",
        f"| CPU ms per Task | {' | '.join(figures)} |",
        "|---|" + "---|" * len(figures),
    ]
    lines += [f"| {name} | {' | '.join(f'{c[name]:.1f}' for c in figures.values())} |" for name in names]
    lines.append(f"| **together** | {' | '.join(f'**{sum(c.values()):.1f}**' for c in figures.values())} |")
    return "\n".join(lines)
