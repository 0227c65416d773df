"""Every row of docs/failures.md has a test that claims it, and no test claims a row that is not there.

The claims are read from the source, so this needs no API server and no import of the tests.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).resolve().parent
FOLDERS = (TESTS, TESTS.parent / "libs", TESTS.parent / "services")


def load_table() -> ModuleType:
    """support/failures.py, which is a package of the end-to-end tests only."""
    spec = importlib.util.spec_from_file_location("kubechain_failures", TESTS / "e2e" / "support" / "failures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


TABLE = load_table()
ROWS = TABLE.parse_failures(TABLE.DOCUMENT.read_text(encoding="utf-8"))

Claim = tuple[str, str]
"""(id, where the test is)."""


def read_claims(path: Path) -> Iterator[Claim]:
    """The ids in the failure markers of a file and in its ``failure_case``s, wherever they stand."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        claimed = node.args if called.endswith("mark.failure") else node.args[:1] if called == "failure_case" else []
        for argument in claimed:
            assert isinstance(argument, ast.Constant), f"{path}:{node.lineno}: a failure is claimed by a literal id"
            yield str(argument.value), f"{path.name}:{node.lineno}"


def read_all_claims() -> list[Claim]:
    """Of the tests of the whole product and of its parts."""
    paths = (path for folder in FOLDERS for path in folder.rglob("test_*.py"))
    return [claim for path in sorted(paths) for claim in read_claims(path)]


def test_ids_are_unique_and_readable() -> None:
    ids = [row.id for row in ROWS]
    assert sorted(ids) == sorted(set(ids))
    assert [id_ for id_ in ids if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id_)] == []


def test_every_row_says_what_happens_what_is_seen_and_what_to_do() -> None:
    incomplete = [row.id for row in ROWS if not (row.happens and row.phrases and row.remedy)]
    assert not incomplete


def test_every_row_is_claimed_by_a_test() -> None:
    claimed = {id_ for id_, _ in read_all_claims()}
    missing = [row.id for row in ROWS if row.id not in claimed]
    assert not missing, f"{len(missing)} of {len(ROWS)} failures have no test: {', '.join(missing)}"


def test_no_test_claims_an_unknown_row() -> None:
    known = {row.id for row in ROWS}
    assert [f"{where}: {id_}" for id_, where in read_all_claims() if id_ not in known] == []


def test_a_table_is_read_with_its_quotes() -> None:
    (row,) = TABLE.parse_failures(
        "## Tools\n\n| id | what happens | what you see | what to do |\n|---|---|---|---|\n"
        "| `a-b` | one \\| two | `Failed`, and ``a `b` … c`` | nothing |\n"
    )
    assert (row.id, row.section, row.happens, row.remedy) == ("a-b", "Tools", "one | two", "nothing")
    assert row.phrases == ["Failed", "a `b` … c"]


def test_claims_are_read_from_functions_and_parameters(tmp_path: Path) -> None:
    probe = tmp_path / "test_probe.py"
    probe.write_text(
        "import pytest\n"
        '@pytest.mark.failure("a", "b")\n'
        '@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.failure("c")), failure_case("d", 1, "e")])\n'
        "def test_something(x): ...\n"
    )
    assert {id_ for id_, _ in read_claims(probe)} == {"a", "b", "c", "d"}
