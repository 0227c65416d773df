"""May a call run, here and now?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from kubechain_common.api.tool_arguments import InvalidArgumentsError
from kubechain_common.api.v1alpha1.mcpserver import MCPTool, ToolAnnotations
from kubechain_common.messaging import Claim
from kubechain_mcp_host.calls.execution_decision import (
    Execution,
    asks_age,
    decide_execution,
    may_run_again,
    parse_arguments,
)

RECORD = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("claim", "age", "repeatable", "expected"),
    [
        (Claim.GRANTED, 0, False, Execution.RUN),
        (Claim.GRANTED, 1, False, Execution.RUN),
        (Claim.GRANTED, -1, False, Execution.OUTCOME_UNKNOWN),
        (Claim.GRANTED, None, False, Execution.OUTCOME_UNKNOWN),
        (Claim.GRANTED, -1, True, Execution.RUN),
        (Claim.GRANTED, None, True, Execution.RUN),
        (Claim.TAKEN, 1, False, Execution.OUTCOME_UNKNOWN),
        (Claim.TAKEN, None, False, Execution.OUTCOME_UNKNOWN),
        (Claim.TAKEN, 1, True, Execution.RUN_AGAIN),
        (Claim.TAKEN, None, True, Execution.RUN_AGAIN),
        (Claim.CANCELLED, 1, False, Execution.CANCELLED),
        (Claim.CANCELLED, 1, True, Execution.CANCELLED),
        (Claim.CANCELLED, -1, True, Execution.CANCELLED),
        (Claim.CANCELLED, None, False, Execution.CANCELLED),
    ],
)
def test_decide_execution(claim: Claim, age: int | None, repeatable: bool, expected: Execution) -> None:
    """``age``: by how much the call is younger than the record, in microseconds; None where nobody looked."""
    requested = RECORD + timedelta(microseconds=age or 0)
    created = None if age is None else RECORD
    assert decide_execution(claim, repeatable=repeatable, requested_at=requested, record_created_at=created) is expected


@pytest.mark.parametrize("repeatable", [False, True])
@pytest.mark.parametrize("claim", list(Claim))
def test_the_age_is_asked_for_where_it_decides(claim: Claim, repeatable: bool) -> None:
    outcomes = {
        decide_execution(claim, repeatable=repeatable, requested_at=requested, record_created_at=RECORD)
        for requested in (RECORD - timedelta(days=1), RECORD + timedelta(days=1))
    }
    assert asks_age(claim, repeatable=repeatable) == (len(outcomes) > 1)


def test_who_may_run_again() -> None:
    def tool(**hints: bool) -> MCPTool:
        return MCPTool(name="t", annotations=ToolAnnotations(**hints) if hints else None)

    assert not may_run_again(tool(), None)
    assert not may_run_again(tool(), "Fail")
    assert not may_run_again(tool(read_only_hint=False, destructive_hint=True), None)
    assert may_run_again(tool(), "Retry")
    assert may_run_again(tool(read_only_hint=True), "Fail")
    assert may_run_again(tool(idempotent_hint=True), None)


def test_arguments() -> None:
    assert parse_arguments('{"a": [1]}') == {"a": [1]}
    assert parse_arguments(" ") == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": NaN}', "not valid JSON: NaN is not a JSON value"),
        ('{"a": ', "not valid JSON: Expecting value: line 1 column 7"),
        ("[1]", "have to be a JSON object, not an array."),
        ('"x"', "have to be a JSON object, not a string."),
        ("true", "have to be a JSON object, not a boolean."),
        ("1.5", "have to be a JSON object, not a number."),
        ('{"a": 1e999}', "not valid JSON: 1e999 is out of range"),
        ('{"a": "\\ud800"}', "hold half a surrogate pair"),
        ("null", "have to be a JSON object, not null."),
    ],
)
def test_bad_arguments_are_explained(text: str, sentence: str) -> None:
    with pytest.raises(InvalidArgumentsError, match=sentence):
        parse_arguments(text)


def test_absurdly_deep_arguments_are_refused() -> None:
    with pytest.raises(InvalidArgumentsError):
        parse_arguments("[" * 100_000)
