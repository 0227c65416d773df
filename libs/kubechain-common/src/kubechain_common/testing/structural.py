"""What an API server says of an object by its structural schema alone (CEL rules aside, patterns in them included).

Only as much of OpenAPI as our CRDs use, and how many properties an object has is not counted: like a CEL rule, that is
the API server's alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

INT64 = range(-(2**63), 2**63)

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}
_MATCHES = re.compile(r"self\.matches\('(?P<pattern>.*)'\)")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def pattern_of(schema: Schema) -> str | None:
    """The regular expression that a string has to match, from ``pattern`` or from a rule in its place."""
    rules = (_MATCHES.fullmatch(rule["rule"]) for rule in schema.get("x-kubernetes-validations", ()))
    found = [match["pattern"].replace("\\\\", "\\") for match in rules if match]
    return schema.get("pattern") or (found[0] if found else None)


def find_violations(schema: Schema, value: Any, path: str = "") -> Iterator[str]:
    """Each way in which the value breaks the schema; an unknown field is one, as with strict validation."""
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, int | str) or isinstance(value, bool):
            yield f"{path}: neither an integer nor a string"
        return
    kind = schema.get("type")
    if kind is not None and not _has_type(kind, value):
        yield f"{path}: {type(value).__name__} instead of {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: not one of {schema['enum']}"
    match value:
        case str():
            yield from _violations_of_text(schema, value, path)
        case list():
            yield from _violations_of_size(schema, len(value), "Items", path)
            for index, item in enumerate(value):
                yield from find_violations(schema["items"], item, f"{path}[{index}]")
        case dict():
            yield from _violations_of_object(schema, value, path)
        case bool() | None:
            return
        case _:
            if value < schema.get("minimum", value) or value > schema.get("maximum", value):
                yield f"{path}: {value} is out of range"


def _has_type(kind: str, value: Any) -> bool:
    if kind == "integer" and isinstance(value, int) and not isinstance(value, bool):
        return value in INT64
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _violations_of_text(schema: Schema, text: str, path: str) -> Iterator[str]:
    yield from _violations_of_size(schema, len(text), "Length", path)
    pattern = pattern_of(schema)
    if pattern is not None and not re.search(pattern, text):
        yield f"{path}: does not match {pattern}"
    if schema.get("format") == "date-time" and not _is_date_time(text):
        yield f"{path}: no date-time"


def _violations_of_size(schema: Schema, size: int, what: str, path: str) -> Iterator[str]:
    if not schema.get(f"min{what}", 0) <= size <= schema.get(f"max{what}", size):
        yield f"{path}: {size} {what.lower()}"


def _violations_of_object(schema: Schema, value: Mapping[str, Any], path: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{path}.{name}: required"
    for name, child in value.items():
        if name in properties:
            yield from find_violations(properties[name], child, f"{path}.{name}")
        elif "additionalProperties" in schema:
            yield from find_violations(schema["additionalProperties"], child, f"{path}.{name}")
        elif not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{path}.{name}: unknown"


def _is_date_time(text: str) -> bool:
    return _DATE_TIME.fullmatch(text) is not None
