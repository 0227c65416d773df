"""Runs every workload once, prints the table and writes results.md."""

from __future__ import annotations

import asyncio
from pathlib import Path

import uvloop

from benchmarks import workloads as w
from benchmarks.product import Product, running_product
from benchmarks.report import BUDGETS, render, write_results

RESULTS = Path(__file__).parent / "results.md"


async def measure(product: Product) -> dict[str, float]:
    """All figures, the idle ones first."""
    pids = list(product.pids().values())
    await w.run_tasks(product, "warm", 5, w.THREE_TURNS)
    figures = {"rss_mb": w.resident_mb(pids)}
    await asyncio.sleep(2)
    figures["idle_cpu"] = await w.idle_cpu_percent(pids)
    figures["plain_ms"] = await w.latency_ms(product, "plain", 50, w.PLAIN)
    figures["three_turns_ms"] = await w.latency_ms(product, "turns", 20, w.THREE_TURNS)
    figures["plain_burst"] = await w.throughput(product, "burst", 200, w.PLAIN)
    figures["turns_burst"] = await w.throughput(product, "turnburst", 100, w.THREE_TURNS)
    figures["slow_llm_s"] = await w.makespan(product, "slow", 200, w.ONE_SECOND)
    figures["writes_plain"] = await w.writes_per_task(product, "writes", w.PLAIN)
    figures["writes_turn"] = (
        await w.writes_per_task(product, "turnwrites", w.THREE_TURNS) - figures["writes_plain"]
    ) / 3
    figures["late_turn"], turns = await w.late_turn_ratio(product)
    for turn in (1, 10, 50, 100):
        print(f"turn {turn:>3}: {turns[turn] * 1000:6.1f} ms")
    return figures


async def main() -> None:
    async with running_product() as product:
        figures = await measure(product)
        write_results(RESULTS, figures, sorted(product.pids()))
    assert figures.keys() == BUDGETS.keys()
    print(render(figures))
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    uvloop.run(main())
