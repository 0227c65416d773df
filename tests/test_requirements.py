"""Every promise in requirements.py has a test that claims it, and no test claims a promise that nobody made.

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


def load_requirements() -> ModuleType:
    """requirements.py, which is beside this file and in no package."""
    spec = importlib.util.spec_from_file_location("kubechain_requirements", TESTS / "requirements.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


REQUIREMENTS = load_requirements().REQUIREMENTS
KNOWN = {requirement.id for requirement in REQUIREMENTS}

Claim = tuple[str, str]
"""(id, where the test is)."""


def read_claims(path: Path) -> Iterator[Claim]:
    """The ids in the requirement markers of a file, wherever they stand."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith("mark.requirement"):
            continue
        for argument in node.args:
            assert isinstance(argument, ast.Constant), f"{path}:{node.lineno}: a requirement is claimed by a literal id"
            yield str(argument.value), f"{path.name}:{node.lineno}"


def read_all_claims() -> list[Claim]:
    return [claim for path in sorted(TESTS.rglob("test_*.py")) for claim in read_claims(path)]


def test_ids_are_unique_and_readable() -> None:
    ids = [requirement.id for requirement in REQUIREMENTS]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id_) for id_ in ids)


def test_every_requirement_quotes_and_explains() -> None:
    for requirement in REQUIREMENTS:
        assert requirement.seed.strip(), requirement.id
        assert requirement.behaviour.endswith("."), requirement.id


def test_every_requirement_is_claimed_by_a_test() -> None:
    claimed = {id_ for id_, _ in read_all_claims()}
    missing = [requirement.id for requirement in REQUIREMENTS if requirement.id not in claimed]
    assert not missing, f"{len(missing)} of {len(KNOWN)} requirements have no test: {', '.join(missing)}"


def test_no_test_claims_an_unknown_requirement() -> None:
    unknown = [f"{where}: {id_}" for id_, where in read_all_claims() if id_ not in KNOWN]
    assert not unknown


def test_claims_are_read_from_functions_and_modules(tmp_path: Path) -> None:
    probe = tmp_path / "test_probe.py"
    probe.write_text(
        "import pytest\n"
        'pytestmark = [pytest.mark.requirement("a")]\n'
        '@pytest.mark.requirement("b", "c")\n'
        "def test_something(): ...\n"
    )
    assert {id_ for id_, _ in read_claims(probe)} == {"a", "b", "c"}
