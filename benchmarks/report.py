"""Budgets, and the table that sets each figure beside its own."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.machine import MachineSpeed


@dataclass(frozen=True)
class Budget:
    """``first`` is what the next release must meet, ``then`` what comes after it."""

    title: str
    unit: str
    first: float
    then: float
    more_is_better: bool = False

    def is_met(self, value: float) -> bool:
        return value >= self.first if self.more_is_better else value <= self.first


BUDGETS = {
    "plain_ms": Budget("plain Task, one after another, create -> FinalAnswer seen, p50", "ms", 25, 17),
    "three_turns_ms": Budget("Task with 3 tool turns, p50", "ms", 150, 100),
    "plain_burst": Budget("200 plain Tasks at once", "Tasks/s", 60, 110, more_is_better=True),
    "turns_burst": Budget("100 Tasks with 3 tool turns at once", "Tasks/s", 20, 32, more_is_better=True),
    "slow_llm_s": Budget("200 Tasks at once with a 1 s LLM, all done in", "s", 4, 2.5),
    "writes_plain": Budget("writes to the API server per plain Task", "", 2, 2),
    "writes_turn": Budget("writes per tool turn with one call", "", 4, 4),
    "late_turn": Budget("100th turn against the 1st, 10 KB tool results", "x", 2, 1.3),
    "rss_mb": Budget("idle services, RSS together", "MB", 450, 350),
    "idle_cpu": Budget("idle services, CPU together", "% of a core", 2, 2),
}


SHOWN_TURNS = (1, 10, 100, 200)


def render(figures: dict[str, float]) -> str:
    """A Markdown table."""
    lines = ["| figure | measured | first | then | |", "|---|---|---|---|---|"]
    for key, budget in BUDGETS.items():
        value = figures[key]
        mark = "met" if budget.is_met(value) else "not met"
        measured = f"{value:.1f} {budget.unit}".rstrip()
        lines.append(f"| {budget.title} | {measured} | {budget.first:g} | {budget.then:g} | {mark} |")
    return "\n".join(lines)


def render_turns(turns: Mapping[int, float]) -> str:
    """A Markdown table of some of the turns, and the plot of all."""
    shown = [turn for turn in SHOWN_TURNS if turn in turns]
    lines = [
        "One Task whose every turn adds a tool result of 10 KB; from one request at the model to the next, so the",
        "model's own reading of the whole conversation is in it. Each figure is the median of the turns around it.",
        "",
        "| turn of one Task | ms | against the first |",
        "|---|---|---|",
    ]
    lines += [f"| {turn} | {turns[turn]:.1f} | {turns[turn] / turns[1]:.2f} x |" for turn in shown]
    return "\n".join([*lines, "", "![Milliseconds of each turn](turns.svg)"])


def write_results(
    path: Path, figures: dict[str, float], speed: MachineSpeed, services: Sequence[str], tables: Mapping[str, str]
) -> None:
    """The table with what it was measured on; ``tables`` are further ones, by their headings."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    machine = f"{os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, {platform.system()}"
    path.write_text(
        "# Benchmark results\n\n"
        f"Measured {when} by `make bench` on {machine}; everything on one machine, a scripted LLM and an echo\n"
        f"tool that answer in about a millisecond. Services: {', '.join(services)}.\n\n"
        f"Machines are not equally fast, nor is one at all times: before the run, {speed}.\n\n"
        "`first` is the budget of the next release, `then` the one after it; the last column compares with `first`.\n\n"
        f"{render(figures)}\n" + "".join(f"\n## {heading}\n\n{table}\n" for heading, table in tables.items()),
        encoding="utf-8",
    )
