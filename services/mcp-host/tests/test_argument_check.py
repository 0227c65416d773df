"""Arguments against a tool's schema: which field is wrong, and what is left for the server to check."""

from __future__ import annotations

import time
from typing import Any

import pytest

from kubechain_mcp_host.connections.argument_check import ArgumentCheck

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 40},
        "days": {"type": "integer", "minimum": 1},
        "unit": {"enum": ["C", "F"]},
        "at": {"type": "object", "properties": {"points": {"type": "array", "items": {"type": "number"}}}},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
GOOD = {"city": "Oslo", "days": 2}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (GOOD, ""),
        ({**GOOD, "note": None, "unit": "C", "at": {"points": [1, 2.5]}}, ""),
        ({}, '"city", "days" missing in the arguments'),
        ({**GOOD, "days": "2"}, '"days" must be of type integer, not "2"'),
        ({**GOOD, "days": True}, '"days" must be of type integer, not true'),
        ({**GOOD, "days": 0}, '"days" must have minimum 1, and is 0'),
        ({**GOOD, "unit": "K"}, '"unit" must be one of ["C", "F"], not "K"'),
        ({**GOOD, "at": {"points": [1, "x"]}}, '"at.points[1]" must be of type number, not "x"'),
        ({**GOOD, "days": "\ud83d"}, '"days" must be of type integer, not "\N{REPLACEMENT CHARACTER}"'),
        ({**GOOD, "note": 3}, '"note" fits none of what is allowed there: 3'),
        ({**GOOD, "town": "x"}, '"town" not known in the arguments (known: city, days, unit, at, note)'),
        ({"city": 1, "days": "x"}, '"city" must be of type string, not 1; "days" must be of type integer, not "x"'),
    ],
)
def test_names_the_field(arguments: dict[str, Any], told: str) -> None:
    assert ArgumentCheck(CITY).find_problems(arguments) == told


def test_tells_little_of_a_large_value_and_of_many_problems() -> None:
    told = ArgumentCheck(CITY).find_problems({**GOOD, "days": "x" * 100_000})
    assert len(told) < 300
    told = ArgumentCheck(CITY).find_problems({**GOOD, "at": {"points": ["x"] * 10_000}})
    assert told.count("must be of type number") == 5
    assert told.endswith("; and more")


@pytest.mark.parametrize(
    "schema",
    [
        None,
        {},
        {"type": "no such type"},
        {"$ref": "http://127.0.0.1:1/never-fetched"},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"$schema": "http://example.com/unknown", "type": "object"},
        {"properties": {"a": {"pattern": "^(a+)+$"}}},
        {"not": {"properties": {"a": {"pattern": "^b"}}}},
        {"if": {"properties": {"a": {"pattern": "^b"}}}, "then": {"required": ["z"]}},
        {"oneOf": [{"properties": {"a": {"pattern": "^b"}}}, {"properties": {"a": {"pattern": "^a"}}}]},
        {"patternProperties": {"^a": {}}, "additionalProperties": False},
    ],
)
def test_in_doubt_the_server_decides(schema: dict[str, Any] | None) -> None:
    assert ArgumentCheck(schema).find_problems({"a": "a" * 60 + "!"}) == ""


@pytest.mark.parametrize(
    "dialect", ["http://json-schema.org/draft-07/schema#", "http://json-schema.org/draft-04/schema#"]
)
def test_older_dialects(dialect: str) -> None:
    check = ArgumentCheck({"$schema": dialect, "type": "object", "properties": {"n": {"type": "integer"}}})
    assert check.find_problems({"n": "x"}) == '"n" must be of type integer, not "x"'


def test_references_within_the_schema() -> None:
    schema = {"$defs": {"P": {"type": "object", "required": ["x"]}}, "properties": {"p": {"$ref": "#/$defs/P"}}}
    assert ArgumentCheck(schema).find_problems({"p": {}}) == '"x" missing in "p"'


@pytest.mark.parametrize(("keyword", "last"), [("allOf", "object"), ("anyOf", "string")])
def test_references_that_double_at_each_step_end_the_check(keyword: str, last: str) -> None:
    steps = {f"s{i}": {keyword: [{"$ref": f"#/$defs/s{i + 1}"}] * 2} for i in range(60)}
    schema = {"$ref": "#/$defs/s0", "$defs": {**steps, "s60": {"type": last}}}
    assert ArgumentCheck(schema).find_problems({}) == ""


def test_a_dialect_that_a_part_of_the_schema_names_lifts_no_bound() -> None:
    dialect = "https://json-schema.org/draft/2020-12/schema"
    part = {"$schema": dialect, "type": "string", "pattern": "^(a+)+$"}
    check = ArgumentCheck({"properties": {"a": part}})
    assert check.find_problems({"a": "a" * 60 + "!"}) == ""
    assert check.find_problems({"a": 1}) == '"a" must be of type string, not 1'


@pytest.mark.parametrize("draft", ["draft-04/schema#", "draft-06/schema#"])
def test_a_schema_whose_check_compares_all_with_all_is_checked_without_that(draft: str) -> None:
    schema = {"$schema": f"http://json-schema.org/{draft}", "enum": [{"a": number} for number in range(20_000)]}
    before = time.process_time()
    assert ArgumentCheck(schema).find_problems({"a": 3}) == ""
    assert time.process_time() - before < 5.0


@pytest.mark.parametrize("part", [{}, {"type": "string"}])
def test_a_schema_of_very_many_parts_is_left_to_the_server(part: dict[str, Any]) -> None:
    schema = {"anyOf": [part] * 50_000, "required": ["z"]}
    before = time.process_time()
    assert ArgumentCheck(schema).find_problems({}) == ""
    assert time.process_time() - before < 5.0


def test_a_large_schema_is_checked() -> None:
    schema = {"properties": {f"field{number}": {"type": "string"} for number in range(1000)}}
    assert ArgumentCheck(schema).find_problems({"field7": 1}) == '"field7" must be of type string, not 1'


def test_references_are_counted_for_each_check_anew() -> None:
    schema = {"properties": {"days": {"$ref": "#/$defs/days"}}, "$defs": {"days": {"type": "integer"}}}
    check = ArgumentCheck(schema)
    for _ in range(3000):
        assert check.find_problems({"days": 1}) == ""
    assert check.find_problems({"days": "x"}) == '"days" must be of type integer, not "x"'
