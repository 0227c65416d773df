"""No test falls between the selections of `make test`: the folder of a test module and its marker say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent


@pytest.mark.parametrize("marker", ["integration", "e2e", "chaos"])
def test_every_module_in_the_folder_carries_its_marker(marker: str) -> None:
    pattern = re.compile(rf"^pytestmark = (\[[^\]]*)?pytest\.mark\.{marker}\b", re.MULTILINE)
    modules = sorted((TESTS / marker).rglob("test_*.py"))
    without = [path.name for path in modules if not pattern.search(path.read_text(encoding="utf-8"))]
    assert not without, f"these need `pytestmark = pytest.mark.{marker}`, or `make test` never runs them"
