"""The rows of docs/failures.md, as the tests that prove them need them.

A row's third column says what a user sees; the words in backticks there are what a test looks for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "failures.md"
ANY = "…"
"""Stands for any text in a quoted phrase."""

_COLUMNS = 4
_CELL_END = re.compile(r"(?<!\\)\|")
_QUOTED = re.compile(r"(`+)(.+?)\1(?!`)")


@dataclass(frozen=True)
class FailureRow:
    """One row: what happens, what its user sees, and what to do."""

    id: str
    section: str
    happens: str
    seen: str
    remedy: str

    @property
    def phrases(self) -> list[str]:
        """The words that the row quotes as seen."""
        return [quoted.strip() for _, quoted in _QUOTED.findall(self.seen)]


def parse_failures(text: str) -> list[FailureRow]:
    """The rows of every table of the document; ``\\|`` is a bar within a cell."""
    rows: list[FailureRow] = []
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("## "):
            section = line.removeprefix("## ").strip()
        if not line.startswith("|"):
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in _CELL_END.split(line)[1:-1]]
        assert len(cells) == _COLUMNS, f"line {number}: {len(cells)} cells instead of {_COLUMNS}"
        if cells[0] != "id" and not set(cells[0]) <= {"-", ":"}:
            rows.append(FailureRow(cells[0].strip("`"), section, *cells[1:]))
    return rows


def read_failures() -> dict[str, FailureRow]:
    """The rows of docs/failures.md by id."""
    return {row.id: row for row in parse_failures(DOCUMENT.read_text(encoding="utf-8"))}
