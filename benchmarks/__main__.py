"""Runs every workload once, prints the tables and writes results.md and turns.svg.

`--scale` measures ten thousand finished Tasks instead and prints their table, `--gateway` what llm-gateway adds to a
call.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import uvloop

from benchmarks import workloads as w
from benchmarks.cpu import cpu_ms_per_task, idle_cpu_a_second, render_cpu
from benchmarks.gateway import measure_gateway
from benchmarks.machine import measure_machine
from benchmarks.plot import draw_turns
from benchmarks.product import Product, running_product
from benchmarks.report import BUDGETS, render_turns, write_results
from benchmarks.scale import measure_scale, render_scale

RESULTS = Path(__file__).parent / "results.md"
PLOT = Path(__file__).parent / "turns.svg"
SHOWN_TURNS = 200


async def measure(product: Product) -> dict[str, float]:
    """All figures, the idle ones first."""
    pids = list(product.pids().values())
    await w.run_tasks(product, "warm", 5, w.THREE_TURNS)
    await w.settle(product)
    figures = {"rss_mb": w.resident_mb(pids)}
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
    return figures


async def measure_cpu(product: Product) -> str:
    """Where the time of a Task goes, as a table."""
    await w.settle(product)
    idle = await idle_cpu_a_second(product)
    plain = await cpu_ms_per_task(product, 200, lambda: w.run_tasks(product, "cpu", 200, w.PLAIN), idle)
    await w.settle(product)
    turns = await cpu_ms_per_task(product, 100, lambda: w.run_tasks(product, "turncpu", 100, w.THREE_TURNS), idle)
    return render_cpu({"plain": plain, "3 tool turns": turns})


async def measure_turns(product: Product) -> dict[int, float]:
    """Milliseconds by turn of one long conversation."""
    seconds = await w.seconds_by_turn(product)
    return {turn: w.smooth(seconds, turn) * 1000 for turn in range(1, SHOWN_TURNS + 1)}


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--scale", action="store_true", help="measure ten thousand finished Tasks instead")
    parser.add_argument("--gateway", action="store_true", help="measure llm-gateway between its neighbours instead")
    options = parser.parse_args()
    machine = await asyncio.to_thread(measure_machine)
    async with running_product() as product:
        if options.scale:
            print(render_scale(await measure_scale(product)))
            return
        if options.gateway:
            print(await measure_gateway(product))
            return
        figures = await measure(product)
        turns = await measure_turns(product)
        figures["late_turn"] = turns[100] / turns[1]
        PLOT.write_text(draw_turns(turns), encoding="utf-8")
        tables = {"The cost of a turn against the length of the conversation": render_turns(turns)}
        tables["Where the time goes"] = await measure_cpu(product)
        write_results(RESULTS, figures, machine, sorted(product.pids()), tables)
    assert figures.keys() == BUDGETS.keys()
    print(RESULTS.read_text())


if __name__ == "__main__":
    uvloop.run(main())
