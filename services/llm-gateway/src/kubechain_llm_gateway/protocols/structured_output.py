"""A ``ResponseFormat`` in the ways in which the providers want it. Pure.

Chat Completions takes any schema, and holds the model to it strictly if every object is closed and every property
required. Messages takes a part of JSON Schema only. Bounds are left out of what it is sent, because task-controller
checks the answer anyway. What that part can not express is asked for in words, as it is of every host that has nothing
better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubechain_common.messages import ResponseFormat
from kubechain_llm_gateway.protocols.wire_ids import fit_id
from kubechain_llm_gateway.protocols.wire_json import encode_text

_MAX_NAME = 64
_KEPT = frozenset({"type", "enum", "const", "description", "title", "default", "format", "required"})
_DROPPED = frozenset(
    {
        "$schema",
        "$id",
        "$comment",
        "examples",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "additionalProperties",
    }
)
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})


class _InexpressibleError(Exception):
    """The schema says something for which the API has no words."""


def build_json_schema_format(wanted: ResponseFormat) -> dict[str, Any]:
    """``response_format`` of Chat Completions."""
    schema: dict[str, Any] = {"name": fit_id(wanted.name or "answer", _MAX_NAME), "schema": wanted.json_schema}
    if _is_strict(wanted.json_schema):
        schema["strict"] = True
    return {"type": "json_schema", "json_schema": schema}


def build_output_config(wanted: ResponseFormat) -> dict[str, Any] | None:
    """``output_config`` of Messages; None when the schema goes beyond what the API takes."""
    try:
        schema = _narrow(wanted.json_schema)
    except _InexpressibleError:
        return None
    return {"format": {"type": "json_schema", "schema": schema}}


def build_instruction(wanted: ResponseFormat) -> str:
    """The wish for that form in words, for the system prompt."""
    return (
        f"Your final answer ({wanted.name}) must be a single JSON value that conforms to this JSON Schema, without any"
        f" text or code fence around it:\n{encode_text(wanted.json_schema)}"
    )


def _is_strict(schema: Any) -> bool:
    """Whether OpenAI's strict mode takes the schema: every object closed, with all its properties required."""
    if isinstance(schema, list):
        return all(_is_strict(item) for item in schema)
    if not isinstance(schema, Mapping):
        return True
    if schema.keys() - _KEPT - {"properties", "items", "additionalProperties"}:
        return False
    properties = schema.get("properties")
    if schema.get("type") == "object" or properties is not None:
        names = set(properties) if isinstance(properties, Mapping) else set()
        required = schema.get("required")
        if schema.get("additionalProperties") is not False or not isinstance(required, list) or names != set(required):
            return False
    inner = list(properties.values()) if isinstance(properties, Mapping) else []
    return _is_strict(inner) and _is_strict(schema.get("items"))


def _narrow(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, Mapping):
        raise _InexpressibleError
    narrowed: dict[str, Any] = {}
    for word, value in schema.items():
        if word == "format" and value not in _FORMATS:
            continue
        if word in _KEPT:
            narrowed[word] = value
        elif word == "properties" and isinstance(value, Mapping):
            narrowed[word] = {name: _narrow(inner) for name, inner in value.items()}
        elif word == "items":
            narrowed[word] = _narrow(value)
        elif word in ("anyOf", "oneOf") and isinstance(value, list):
            narrowed["anyOf"] = [_narrow(inner) for inner in value]
        elif word not in _DROPPED:
            raise _InexpressibleError
    if schema.get("type") == "object" or "properties" in schema:
        if schema.get("additionalProperties") not in (None, False) or "properties" not in schema:
            raise _InexpressibleError  # a map of whatever names; the API wants every object closed
        narrowed["additionalProperties"] = False
    return narrowed
