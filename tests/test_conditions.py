"""The tests' own waiting holds to what `kubectl wait` would wait for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

# importlib mode leaves sys.path alone, so the repository's root has to be on it for `tests.e2e.support`.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.e2e.support.conditions import parse_condition


def build(status: str, observed: int | None = None, **fields: Any) -> dict[str, Any]:
    seen = {} if observed is None else {"observedGeneration": observed}
    condition = {"type": "Ready", "status": status, **seen}
    return {"metadata": {"generation": 2}, "status": {"conditions": [condition], **fields}}


@pytest.mark.parametrize(
    ("text", "obj", "reached"),
    [
        ("condition=Ready", build("True"), True),
        ("condition=ready", build("True", observed=2), True),
        ("condition=Ready", build("True", observed=1), False),
        ("condition=Ready", build("False"), False),
        ("condition=Complete", build("True"), False),
        ("condition=Ready", {"metadata": {}}, False),
        ("jsonpath={.status.phase}=Failed", build("True", phase="Failed"), True),
        ("jsonpath={.status.phase}=Failed", build("True", phase="Pending"), False),
        ("jsonpath={.status.turn}=2", build("True", turn=2), True),
        ("jsonpath={.status.statusDetail}=a = b", build("True", statusDetail="a = b"), True),
        ("jsonpath={.status.completionTime}", build("True", completionTime="now"), True),
        ("jsonpath={.status.completionTime}", build("True"), False),
        ("jsonpath={.status.ready}=false", build("True", ready=False), True),
        ("jsonpath={.status.ready}=false", build("True", ready=True), False),
        ("jsonpath={.status.a.b}=c", build("True", a="text"), False),
    ],
)
def test_an_object_has_reached_it_or_not(text: str, obj: dict[str, Any], reached: bool) -> None:
    holds = parse_condition(text)
    assert holds is not None
    assert holds(obj) is reached


@pytest.mark.parametrize("text", ["delete", "condition=Ready=False", "jsonpath={.status.conditions[0].type}=Ready"])
def test_what_is_not_understood_is_left_to_kubectl(text: str) -> None:
    assert parse_condition(text) is None
