"""How deeply the values may be nested that others write as they like: schemas of tools, what providers add to a reply.

The API server takes 10,000 levels, while pydantic reads some 200 and writes some 250: an object with more could be kept
but neither read back nor written. So what lies deeper is read as null, and whoever uses such a value first asks
``is_deep``, which has a lower limit: nothing is passed on that was cut.
"""

from __future__ import annotations

from itertools import chain
from typing import Annotated, Any

from pydantic import AfterValidator

MAX_NESTING = 64
"""Levels of objects and lists in a value that is used."""

_READ_NESTING = 96
"""Levels in a value that is read."""


def is_deep(value: Any, limit: int = MAX_NESTING) -> bool:
    """Whether the value has more than ``limit`` levels of objects and lists."""
    level = _containers([value])
    for _ in range(limit):
        if not level:
            return False
        level = _containers(chain.from_iterable(v.values() if isinstance(v, dict) else v for v in level))
    return bool(level)


def _containers(values: Any) -> list[Any]:
    return [value for value in values if isinstance(value, dict | list)]


def _cut(value: dict[str, Any]) -> dict[str, Any]:
    return _without_deep(value, _READ_NESTING) if is_deep(value, _READ_NESTING) else value


def _without_deep(value: Any, levels: int) -> Any:
    if not isinstance(value, dict | list):
        return value
    if levels == 0:
        return None
    if isinstance(value, dict):
        return {key: _without_deep(item, levels - 1) for key, item in value.items()}
    return [_without_deep(item, levels - 1) for item in value]


OpenObject = Annotated[dict[str, Any], AfterValidator(_cut)]
"""A JSON object of any fields, in an object that we read."""
