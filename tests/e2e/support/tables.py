"""Reads what kubectl prints for people, and compares it with what the tutorial prints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

ANY = "…"
"""Stands for any text in an expected line."""


def read_columns(table: str) -> list[str]:
    """The column names of a table of `kubectl get`."""
    return table.splitlines()[0].split()


def read_rows(table: str) -> list[dict[str, str]]:
    """The rows of a table of `kubectl get`, by column name. Cells may hold single spaces."""
    header, *lines = table.splitlines()
    starts = [(match.group(), match.start()) for match in re.finditer(r"\S+(?: \S+)*", header)]
    ends = [start for _, start in starts[1:]]
    return [
        {name: line[start:end].strip() for (name, start), end in zip_longest(starts, ends)}
        for line in lines
        if line.strip()
    ]


@dataclass(frozen=True)
class EventLine:
    """A line of the event table of `kubectl describe`. ``count`` is the x of (x3 over 136m), else 1."""

    type: str
    reason: str
    source: str
    message: str
    count: int = 1

    @property
    def words(self) -> tuple[str, str, str, str]:
        return (self.type, self.reason, self.source, self.message)


def read_events(described: str) -> list[EventLine]:
    """The events at the end of a `kubectl describe` of one object."""
    _, _, table = described.rpartition("\nEvents:")
    found = []
    for line in table.splitlines():
        cells = re.split(r"\s{2,}", line.strip())
        if len(cells) != 5 or cells[0] in ("Type", "----"):
            continue
        kind, reason, age, source, message = cells
        repeated = re.search(r"\(x(\d+) over ", age)
        found.append(EventLine(kind, reason, source, message, int(repeated[1]) if repeated else 1))
    return found


def assert_lines_in_order(ours: str, seed: str) -> None:
    """Every line of ``seed`` is a line of ``ours``, in this order; ours may have more. `ANY` fits any text."""
    lines = [_squeeze(line) for line in ours.splitlines()]
    wanted = [_squeeze(line) for line in seed.splitlines() if line.strip()]
    position = 0
    for line in wanted:
        pattern = re.compile(ANY.join(map(re.escape, line.split(ANY))).replace(ANY, ".*"))
        found = next((i for i in range(position, len(lines)) if pattern.fullmatch(lines[i])), None)
        if found is None:
            raise AssertionError(f"not there, or not after the line before it: {line!r}\n{side_by_side(wanted, lines)}")
        position = found + 1


def assert_events(ours: Sequence[EventLine], seed: Iterable[tuple[str, str, str, str]]) -> None:
    """Each event of ``seed`` (type, reason, source, message) is among ours."""
    wanted = list(seed)
    have = {event.words for event in ours}
    missing = [event for event in wanted if event not in have]
    if missing:
        table = side_by_side(["  ".join(event) for event in wanted], ["  ".join(event.words) for event in ours])
        raise AssertionError(f"events missing: {missing}\n{table}")


def side_by_side(seed: Sequence[str], ours: Sequence[str], width: int = 70) -> str:
    """Both texts beside each other, for a failure."""
    rows = [f"{left[:width]:<{width}} | {right[:width]}" for left, right in zip_longest(seed, ours, fillvalue="")]
    return "\n".join([f"{'THE TUTORIAL':<{width}} | OURS", *rows])


def _squeeze(line: str) -> str:
    return " ".join(line.split())
