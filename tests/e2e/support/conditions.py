"""What `kubectl wait --for` waits for, as a predicate of an object: conditions and single fields."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

Predicate = Callable[[Mapping[str, Any]], bool]


def parse_condition(text: str) -> Predicate | None:
    """``condition=Name``, ``jsonpath={.a.b}`` and ``jsonpath={.a.b}=value``; None for what is left to kubectl."""
    if found := re.fullmatch(r"condition=(\w+)", text):
        name = found[1]
        return lambda obj: has_condition(obj, name)
    if found := re.fullmatch(r"jsonpath=\{((?:\.\w+)+)\}(?:=(.*))?", text):
        path, value = found[1].split(".")[1:], found[2]
        return lambda obj: (at := read_field(obj, path)) is not None and (value is None or show(at) == value)
    return None


def has_condition(obj: Mapping[str, Any], name: str) -> bool:
    """Like kubectl, not one of an older generation of the object."""
    generation = obj["metadata"].get("generation", 0)
    return any(
        condition["type"].lower() == name.lower()
        and condition["status"] == "True"
        and condition.get("observedGeneration", generation) >= generation
        for condition in (obj.get("status") or {}).get("conditions") or ()
    )


def show(value: Any) -> str:
    """As kubectl prints it."""
    return value if isinstance(value, str) else json.dumps(value)


def read_field(obj: Mapping[str, Any], path: list[str]) -> Any:
    value: Any = obj
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
