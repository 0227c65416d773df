"""The rows of docs/failures.md, as the tests that prove them need them.

A row's third column says what a user sees; the words in backticks there are what a test looks for:

    @pytest.mark.failure("tool-dies")
    def test_...(workspace):
        with Witness(workspace.kubectl) as witness:
            ...
            assert_told("tool-dies", witness, "the-task", "the-server")
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import pytest

from kubechain_common.testing.eventually import eventually

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "failures.md"
ANY = "…"
"""Stands for any text in a quoted phrase."""

TOLD_SECONDS = 20.0
"""Events come after the fact: two writers send them, and a Task with hundreds of tool calls queues hundreds."""

SHOWN = 40
"""Texts that a failed look shows at most; hundreds of Tasks have thousands."""

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


@cache
def read_failures() -> dict[str, FailureRow]:
    """The rows of docs/failures.md by id."""
    return {row.id: row for row in parse_failures(DOCUMENT.read_text(encoding="utf-8"))}


class Told(Protocol):
    """See ``witness`` and ``shown``."""

    def told(self, *names: str) -> list[str]: ...


def assert_told(row_id: str, witness: Told, *names: str) -> None:
    """Everything that the row quotes was to be seen in the status of, or in Events about, the objects of these names.

    Waits for it: Events come a moment after what they tell of.
    """
    phrases = read_failures()[row_id].phrases

    def nothing_missing() -> bool:
        told = witness.told(*names)
        missing = [phrase for phrase in phrases if not any(find(phrase, text) for text in told)]
        assert not missing, f"{row_id}: not seen: {missing}; seen: {sorted({text[:300] for text in told})[:SHOWN]}"
        return True

    eventually(nothing_missing, TOLD_SECONDS, what=f"what the row {row_id} quotes")


def find(phrase: str, text: str) -> bool:
    """Is the phrase in the text? ``…`` in it stands for anything."""
    return re.search(".*".join(map(re.escape, phrase.split(ANY))), text, re.DOTALL) is not None


def failure_case(row_id: str, variant: str, *values: Any) -> Any:
    """A parameter set that claims the row and begins with its id, for ``pytest.mark.parametrize``."""
    return pytest.param(row_id, variant, *values, id=f"{row_id}-{variant}", marks=pytest.mark.failure(row_id))
