"""One wish, said in each provider's way: strictly where the schema allows it, in words where nothing else is there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.llm import LLMParameters
from kubechain_common.messages import ResponseFormat, ToolDefinition
from kubechain_common.testing.arbitrary import JSON
from kubechain_llm_gateway.protocols import anthropic_mapping, openai_mapping
from kubechain_llm_gateway.protocols.dialect import Dialect
from kubechain_llm_gateway.protocols.structured_output import (
    build_instruction,
    build_json_schema_format,
    build_output_config,
)
from kubechain_llm_gateway.protocols.wire_json import encode

CITY = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["name", "tags"],
    "additionalProperties": False,
}
WANTED = ResponseFormat(name="city", json_schema=CITY)
HI = [Message(role="system", content="Be kind."), Message(role="user", content="hi")]
PARAMETERS = LLMParameters(model="m")


def test_a_closed_schema_is_strict() -> None:
    sent = build_json_schema_format(WANTED)
    assert sent == {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}


@pytest.mark.parametrize(
    "change",
    [
        {"additionalProperties": True},
        {"required": ["name"]},
        {"required": "name"},
        {"minProperties": 1},
        {"properties": {"name": {"type": "object"}, "tags": {}}},
        {"properties": {"name": {"type": "string", "maxLength": 3}, "tags": {}}},
        {"properties": {"name": {"$ref": "#/x"}, "tags": {}}},
    ],
)
def test_an_open_schema_is_sent_as_it_is_without_strictness(change: dict[str, Any]) -> None:
    schema = CITY | change
    sent = build_json_schema_format(ResponseFormat(name="city", json_schema=schema))["json_schema"]
    assert sent == {"name": "city", "schema": schema}


@pytest.mark.parametrize(("name", "sent"), [("", "answer"), ("a city", "a_city_"), ("x" * 70, "xxx")])
def test_a_name_is_made_to_fit(name: str, sent: str) -> None:
    fitted = build_json_schema_format(ResponseFormat(name=name, json_schema={}))["json_schema"]["name"]
    assert fitted.startswith(sent)
    assert len(fitted) <= 64


def test_anthropic_gets_closed_objects_without_bounds() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "age": {"type": "integer", "minimum": 0, "description": "in years"},
            "born": {"type": "string", "format": "date"},
            "code": {"type": "string", "format": "of-our-own", "pattern": "^a"},
            "where": {"oneOf": [{"type": "null"}, {"type": "object", "properties": {}}]},
        },
        "required": ["age"],
    }
    assert build_output_config(ResponseFormat(name="x", json_schema=schema)) == {
        "format": {
            "type": "json_schema",
            "schema": {
                "type": "object",
                "properties": {
                    "age": {"type": "integer", "description": "in years"},
                    "born": {"type": "string", "format": "date"},
                    "code": {"type": "string"},
                    "where": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {}, **_CLOSED}]},
                },
                "required": ["age"],
                **_CLOSED,
            },
        }
    }


_CLOSED = {"additionalProperties": False}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}},
        {"not": {"type": "string"}},
        {"type": "array", "items": True},
        {"type": "object", "properties": {"a": {"if": {}}}},
    ],
)
def test_what_anthropic_has_no_words_for_is_asked_for_in_ours(schema: dict[str, Any]) -> None:
    wanted = ResponseFormat(name="x", json_schema=schema)
    body = anthropic_mapping.build_request(HI, [], PARAMETERS, wanted, takes_schema=True)
    assert "output_config" not in body
    assert body["system"] == f"Be kind.\n\n{build_instruction(wanted)}"


def test_a_model_without_schemas_is_asked_in_words() -> None:
    body = anthropic_mapping.build_request(HI[1:], [], PARAMETERS, WANTED)
    assert "output_config" not in body
    assert body["system"] == build_instruction(WANTED)
    assert json.dumps(CITY, separators=(",", ":")) in body["system"]


def test_a_model_with_schemas_is_held_to_them() -> None:
    body = anthropic_mapping.build_request(HI, [ToolDefinition(name="t")], PARAMETERS, WANTED, takes_schema=True)
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": CITY}}
    assert body["system"] == "Be kind."


@given(JSON)
def test_no_schema_breaks_a_request(value: Any) -> None:
    schema = value if isinstance(value, dict) else {"properties": value, "items": value, "required": value}
    wanted = ResponseFormat(name="x", json_schema=schema)
    encode(anthropic_mapping.build_request(HI, [], PARAMETERS, wanted, takes_schema=True))
    encode(openai_mapping.build_request(HI, [], PARAMETERS, Dialect("h"), wanted))


@given(st.recursive(st.just({}), lambda inner: st.dictionaries(st.sampled_from(["anyOf", "items"]), inner)))
def test_a_wish_is_never_changed_by_asking(schema: dict[str, Any]) -> None:
    before = json.dumps(schema)
    build_output_config(ResponseFormat(name="x", json_schema=schema))
    assert json.dumps(schema) == before
