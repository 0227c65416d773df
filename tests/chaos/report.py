"""The figures of all rounds: kept in docs/reliability.json as they come, rendered into docs/reliability.md."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from tests.chaos.load import IN_FLIGHT
from tests.chaos.round import ROOT, STILL_SECONDS, Outcome
from tests.chaos.scenario import BY_NAME, SCENARIOS
from tests.chaos.verdict import BACKLOG_SECONDS, PASSING_SECONDS

from kubechain_cli.localcluster.files import write_atomic

Round = dict[str, Any]

_COLUMNS = (
    ("tasks", "Tasks"),
    ("turns", "turns"),
    ("calls", "tool calls"),
    ("kills", "kills"),
    ("during_requests", "kills while the LLM was being asked"),
    ("during_calls", "kills while a tool ran"),
    ("during_either", "kills while either was in flight"),
    ("lost_tasks", "lost Tasks"),
    ("lost_turns", "lost turns"),
    ("lost_calls", "lost calls"),
    ("duplicated_calls", "duplicated effects"),
    ("approvals", "calls that waited for a person"),
    ("duplicated_asks", "people asked twice"),
    ("repeated_asks", "webhooks sent again under the same id"),
    ("unknown_told", "OutcomeUnknown told"),
    ("repeated_calls", "repeatable tools run again"),
    ("repeated_in_flight", "LLM requests repeated: in flight"),
    ("repeated_storage_lost", "LLM requests repeated: storage lost"),
    ("repeated_unexplained", "LLM requests repeated: not explained"),
    ("anomalies", "other anomalies"),
)
_MEASURED = f"""\
`make chaos` runs the whole product (etcd, kube-apiserver, nats-server and the services, each a process of its own)
with {IN_FLIGHT} Tasks in flight all the time. A Task takes two to four tool turns with one or two calls each; the LLM
takes 20 to 300 ms, a tool 10 to 200 ms; three calls in four are of a tool without a hint, the others of one with
`readOnlyHint` or `idempotentHint`. One call in eight waits for a person first, who is asked through a server that
speaks the HumanLayer API, or by a webhook, and who approves three in four and rejects the others. Meanwhile something
is killed every second or two, without waiting for what was killed before. When a round's deeds end, its Tasks go
on to their end; one that has none when nothing has moved for {STILL_SECONDS:.0f} s is lost.

The counts are not the product's own. The MCP server notes the start and the end of every execution in a file, the LLM
every request, the people every question, the harness every step of every Task that it sees through a watch. The rules
are in `tests/chaos/verdict.py`: every Task ends with its final answer after exactly the ordered turns, results in
call order; a tool without a hint ran once, or at most once and the model was told that the outcome is unknown; a
repeatable one ran at least once; a person was asked once, and no rejected call ran. A repeated LLM request counts as
*in flight* when llm-gateway or nats-server was killed, frozen or cut off before the LLM had answered the earlier one,
or within {PASSING_SECONDS:g} s after: the time in which the gateway reads the answer and JetStream confirms its
result. So does one within {BACKLOG_SECONDS:g} s of the end of a freeze, in which a gateway does what it had been given
before, or within {PASSING_SECONDS:g} s of the restart of nats-server, which forgets what it gave just before and gives
it again. A turn never goes back, a context window only grows, nothing changes after the end, and no call has two
objects; whatever breaks one of these rules is an anomaly.

A kill counts as one with something in flight when, by the witnesses, the LLM was working at an answer or a tool was
running in that moment. Unfinished Tasks there always are.

The longest pause is the longest time that any Task stood still; the 20 s for which the API server is stopped are in
it.
"""


class Report:
    """The rounds in ``folder``; without ``keep`` they are begun anew."""

    def __init__(self, folder: Path, *, keep: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._data = folder / "reliability.json"
        self._text = folder / "reliability.md"
        self.rounds: list[Round] = json.loads(self._data.read_text()) if keep and self._data.exists() else []

    @property
    def kills(self) -> int:
        return sum(sum(r["deaths"].values()) for r in self.rounds)

    @property
    def tasks(self) -> int:
        return sum(r["tasks"] for r in self.rounds)

    @property
    def anomalies(self) -> int:
        return sum(len(r["anomalies"]) for r in self.rounds)

    def reached(self, kills: int, tasks: int) -> bool:
        return self.kills >= kills and self.tasks >= tasks

    def add(self, outcome: Outcome) -> None:
        self.rounds.append(to_round(outcome))
        lines = ",\n".join(json.dumps(r) for r in self.rounds)
        write_atomic(self._data, f"[\n{lines}\n]\n")
        write_atomic(self._text, render(self.rounds))


def to_round(outcome: Outcome) -> Round:
    return {
        "scenario": outcome.scenario,
        "seed": outcome.seed,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _read_commit(),
        "machine": _describe_machine(),
        "seconds": round(outcome.seconds, 1),
        "pause": round(outcome.recovery, 1),
        "deaths": dict(sorted(outcome.journal.deaths.items())),
        "outages": dict(sorted(outcome.journal.outages.items())),
        **asdict(outcome.exposure),
        **asdict(outcome.verdict),
    }


def summary(outcome: Outcome) -> str:
    """A line about a round, and its anomalies."""
    made = to_round(outcome)
    v = outcome.verdict
    figures = (
        f"{outcome.scenario:<13} seed {outcome.seed}: {v.tasks} Tasks, {v.calls} calls, "
        f"{sum(outcome.journal.deaths.values())} kills {made['deaths']} {made['outages'] or ''}; "
        f"lost {v.lost_tasks}, duplicated {v.duplicated_calls}, unknown {v.unknown_told}, "
        f"run again {v.repeated_calls}, "
        f"{v.approvals} approvals, people asked twice {v.duplicated_asks}, webhooks again {v.repeated_asks}, "
        f"asked again {v.repeated_in_flight} + {v.repeated_storage_lost} + {v.repeated_unexplained}; "
        f"{outcome.exposure.during_either} kills with something in flight; "
        f"longest pause {outcome.recovery:.1f} s, "
        f"{outcome.seconds:.0f} s in all"
    )
    return "\n".join([figures, *(f"  ! {anomaly}" for anomaly in v.anomalies)])


def render(rounds: list[Round]) -> str:
    names = [s.name for s in SCENARIOS if any(r["scenario"] == s.name for r in rounds)]
    by_name = {name: _add_up([r for r in rounds if r["scenario"] == name]) for name in names}
    by_name["**all**"] = _add_up(rounds)
    head = ["", *by_name]
    rows = [[title, *(str(total[key]) for total in by_name.values())] for key, title in _COLUMNS]
    rows.append(["longest pause of a Task, s", *(f"{total['pause']:.1f}" for total in by_name.values())])
    rows.append(["rounds", *(str(total["rounds"]) for total in by_name.values())])
    parts = ["# Reliability, measured", "", "Written by `make chaos`; do not edit.", "", *_table(head, rows)]
    parts += ["", "## What was done", "", *_table(["scenario", "text"], [[n, BY_NAME[n].text] for n in names])]
    deaths, outages = _tally(rounds, "deaths"), _tally(rounds, "outages")
    parts += ["", *_table(["killed", "times"], [[n, str(c)] for n, c in sorted(deaths.items())])]
    parts += ["", *_table(["otherwise disturbed", "times"], [[n, str(c)] for n, c in sorted(outages.items())])]
    parts += ["", "## How", "", _MEASURED, f"Machine: {_values(rounds, 'machine')}, everything on it."]
    seeds = sorted({r["seed"].split(".")[0] for r in rounds})
    minutes = sum(r["seconds"] for r in rounds) / 60
    parts += [f"Seed {', '.join(seeds)}; {minutes:.0f} minutes. Every round is in `reliability.json`."]
    parts += [f"Date: {_values(rounds, 'date')}; commit: {_values(rounds, 'commit')}.", ""]
    anomalies = [(r["seed"], a) for r in rounds for a in r["anomalies"]]
    if anomalies:
        parts += ["## Anomalies", "", *(f"- {seed}: {text}" for seed, text in anomalies), ""]
    return "\n".join(parts)


def _values(rounds: list[Round], what: str) -> str:
    return ", ".join(dict.fromkeys(r.get(what, "not noted") for r in rounds))


def _describe_machine() -> str:
    return f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GB"


def _read_commit() -> str:
    """Of the checkout; ``+`` says that it has been changed since."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or "unknown"


def _add_up(rounds: list[Round]) -> dict[str, Any]:
    counts = [key for key, _ in _COLUMNS if key not in ("kills", "anomalies")]
    return {
        **{key: sum(r.get(key, 0) for r in rounds) for key in counts},
        "kills": sum(_tally(rounds, "deaths").values()),
        "anomalies": sum(len(r["anomalies"]) for r in rounds),
        "pause": max((r["pause"] for r in rounds), default=0.0),
        "rounds": len(rounds),
    }


def _tally(rounds: list[Round], what: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for r in rounds:
        total.update(r[what])
    return total


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
