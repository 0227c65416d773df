"""Which schemas an Agent's answers may have, which answers fit, and the one turn to correct one that does not."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.api.v1alpha1.conversation import Message, MessageToolCall, TokenUsage, ToolCallFunction
from kubechain_common.api.v1alpha1.task import TaskPhase
from kubechain_common.messages import LLMResult, ObjectRef
from kubechain_common.testing.arbitrary import JSON, fuzz
from kubechain_common.testing.builders import NOW, build_agent, build_llm, build_mcp_server, build_task
from kubechain_task_controller.core.agent_decision import AgentSnapshot, decide_agent
from kubechain_task_controller.core.agent_needs import AgentNeeds
from kubechain_task_controller.core.plan import TaskPlan, TaskSnapshot
from kubechain_task_controller.core.response_format import build_response_format
from kubechain_task_controller.core.response_schema import TOO_MUCH, find_answer_problem, find_schema_problem
from kubechain_task_controller.core.task_decision import decide_task
from kubechain_task_controller.core.tool_catalog import build_catalog

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "pattern": {"type": "integer", "minimum": 1}},
    "required": ["city"],
    "additionalProperties": False,
}
AGENT = build_agent(mcpServers=[{"name": "fetch"}], responseFormat={"type": "JSONSchema", "jsonSchema": CITY})
CATALOG = build_catalog(AGENT, {"fetch": build_mcp_server(tools=("fetch",))}, {}, {})
GOOD, BAD = '{"city": "Paris"}', '{"town": "Paris"}'
WRONG = '"city" missing in the answer; "town" not known in the answer (known: city, pattern)'

# --- schemas


@pytest.mark.parametrize(
    "schema",
    [
        CITY,
        {},
        {"type": "array", "items": {"$ref": "#/$defs/a~1b"}, "$defs": {"a/b": {"type": "string"}}},
        {"properties": {"children": {"type": "array", "items": {"$ref": "#"}}}},
        {"oneOf": [{"type": "string"}, {"type": "null"}], "format": "date"},
        {"enum": [{"pattern": "x"}]},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": True}, "items": [{"const": 1}]},
    ],
)
def test_a_schema_that_can_be_used(schema: Mapping[str, Any]) -> None:
    assert find_schema_problem(schema) == ""


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "strin"}, '"type" fits none of what is allowed there: "strin"'),
        ({"properties": {"a": {"pattern": "(a+)+$"}}}, "pattern is not supported: leave it out"),
        ({"items": {"uniqueItems": True}}, "uniqueItems is not supported: leave it out"),
        ({"anyOf": [{"patternProperties": {}}]}, "patternProperties is not supported: leave it out"),
        (
            {"$ref": "https://example.com/schema"},
            '$ref "https://example.com/schema" names nothing in the schema itself',
        ),
        ({"items": {"$ref": "#/$defs/gone"}}, '$ref "#/$defs/gone" names nothing in the schema itself'),
        ({"$ref": "#anchor"}, '$ref "#anchor" names nothing in the schema itself'),
        ({"$ref": 5}, '$ref "5" names nothing in the schema itself'),
        ({"description": "x" * 40_000}, "it has 40,019 bytes, and 32,768 is the most"),
    ],
)
def test_a_schema_that_can_not_be_used_is_told_of(schema: Mapping[str, Any], problem: str) -> None:
    assert find_schema_problem(schema) == problem


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize("levels", [70, 900, 100_000])
def test_a_schema_may_not_be_nested_without_end(levels: int) -> None:
    assert find_schema_problem(nested(levels)) == "it is nested too deeply"


def test_an_agent_whose_schema_can_not_be_used_is_an_error_with_a_sentence() -> None:
    agent = build_agent(responseFormat={"type": "JSONSchema", "jsonSchema": {"type": "strin"}})
    plan = decide_agent(AgentSnapshot(AgentNeeds(agent, build_llm()), NOW))
    assert plan.status is not None
    assert (plan.status.ready, plan.status.status) == (False, "Error")
    sentence = 'responseFormat.jsonSchema can not be used: "type" fits none of what is allowed there: "strin"'
    assert plan.status.status_detail == sentence
    assert [(e.type, e.reason) for e in plan.events][-1] == ("Warning", "ValidationFailed")
    boss = AgentNeeds(build_agent("boss", subAgents=[{"name": agent.name}]), build_llm())
    waiting = decide_agent(AgentSnapshot(boss, NOW, {agent.name: AgentNeeds(agent, build_llm())})).status
    assert waiting is not None
    assert waiting.status_detail == 'Waiting for sub-agent "my-assistant" to become ready'


# --- answers


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (GOOD, ""),
        ('  {"city": "Paris", "pattern": 2}\n', ""),
        (BAD, WRONG),
        ('{"city": 5}', '"city" must be of type string, not 5'),
        ('{"city": "x", "pattern": 0}', '"pattern" must have minimum 1, and is 0'),
        ("[]", "the answer must be of type object, not []"),
        ("Paris", "it is not valid JSON (Expecting value: line 1 column 1 (char 0))"),
        (f"```json\n{GOOD}\n```", "it is not valid JSON (Expecting value: line 1 column 1 (char 0))"),
        ('{"city": NaN}', "it is not valid JSON (NaN is no JSON)"),
        ("[" * 100_000, "it is not valid JSON (it is nested too deeply)"),
        ("", "it is not valid JSON (Expecting value: line 1 column 1 (char 0))"),
        (r'{"city": ["\ud83d"]}', '"city" must be of type string, not ["\N{REPLACEMENT CHARACTER}"]'),
        (
            r'{"city": "x", "\ude00": 1}',
            '"\N{REPLACEMENT CHARACTER}" not known in the answer (known: city, pattern)',
        ),
    ],
)
def test_what_is_wrong_with_an_answer(answer: str, problem: str) -> None:
    assert find_answer_problem(CITY, answer) == problem


def test_an_answer_that_is_nested_almost_too_deeply_to_be_read_is_told_of() -> None:
    """Between what can be read and what can be quoted lie a few levels."""
    for depth in range(sys.getrecursionlimit() - 100, sys.getrecursionlimit()):
        assert find_answer_problem(CITY, "[" * depth + "]" * depth)


def test_only_the_first_problems_are_told() -> None:
    schema = {"items": {"type": "string"}}
    problem = find_answer_problem(schema, json.dumps(list(range(9))))
    assert problem.count("must be of type string") == 5
    assert problem.endswith("; and more")


DIALECT = "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("draft", ["draft-04/schema#", "draft-06/schema#"])
def test_no_check_of_a_schema_compares_all_with_all(draft: str) -> None:
    schema = {"$schema": f"http://json-schema.org/{draft}", "enum": [{"a": number} for number in range(2300)]}
    before = time.process_time()
    assert find_schema_problem(schema) == ""
    assert time.process_time() - before < 1.0


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"items": {"allOf": [{"minimum": 0}] * 20}}, json.dumps([1] * 100_000)),
        ({"$ref": "#"}, "1"),
        ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}, "1"),
        ({"$ref": "#/examples/0", "examples": [{"pattern": "(a+)+$"}]}, '"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"'),
        (
            {"$ref": "#/examples/0", "examples": [{"$schema": DIALECT, "pattern": "(a+)+$"}]},
            '"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"',
        ),
        (
            {"items": {"$schema": DIALECT, "allOf": [{"minimum": 0}] * 20}},
            json.dumps([1] * 100_000),
        ),
    ],
    ids=["many items", "itself", "a circle", "a keyword that hides", "a hidden dialect", "a dialect"],
)
def test_a_check_that_would_take_too_long_is_given_up(schema: Mapping[str, Any], answer: str) -> None:
    assert find_schema_problem(schema) == ""
    assert find_answer_problem(schema, answer) == TOO_MUCH


KEYWORDS = ("type", "items", "anyOf", "$ref", "properties", "enum", "multipleOf", "$schema", "required", "minLength")


@fuzz
@given(st.dictionaries(st.sampled_from(KEYWORDS) | st.text(max_size=3), JSON, max_size=4), JSON.map(json.dumps))
def test_no_schema_and_no_answer_breaks_anything(schema: dict[str, Any], answer: str) -> None:
    if not find_schema_problem(schema):
        assert isinstance(find_answer_problem(schema, answer), str)


# --- what becomes of the Task


def decide(task: Task, **parts: Any) -> TaskPlan:
    defaults: dict[str, Any] = {"agent": AGENT, "llm": ObjectRef.of(build_llm()), "catalog": CATALOG}
    return decide_task(TaskSnapshot(task=task, now=NOW, **{**defaults, **parts}))


def carried_out(task: Task, plan: TaskPlan) -> Task:
    return task.model_copy(update={"status": plan.status}) if plan.status else task


def started(**spec: Any) -> Task:
    task = build_task(**spec)
    return carried_out(task, decide(task))


def say(text: str, *tools: str, turn: int = 1, incomplete: str = "") -> LLMResult:
    calls = [MessageToolCall(id=f"c{n}", function=ToolCallFunction(name=name)) for n, name in enumerate(tools)]
    return LLMResult(
        task=ObjectRef.of(build_task()),
        turn=turn,
        outcome="Message",
        message=Message(role="assistant", content=text, tool_calls=calls or None),
        usage=TokenUsage(input_tokens=100, total_tokens=100),
        incomplete=incomplete,
    )


def conditions(plan: TaskPlan) -> list[tuple[str, str, str]]:
    assert plan.status is not None
    return [(c.type, c.status, c.reason) for c in plan.status.conditions]


def test_an_answer_that_fits_is_the_answer() -> None:
    plan = decide(started(), result=say(GOOD))
    assert conditions(plan) == [("Complete", "True", "FinalAnswer")]
    assert plan.status is not None
    assert plan.status.output == GOOD


def test_an_answer_that_does_not_fit_is_sent_back_once() -> None:
    task = started()
    plan = decide(task, result=say(BAD))
    assert plan.status is not None
    assert (plan.status.phase, plan.status.turn, plan.status.ready) == (TaskPhase.SEND_CONTEXT_WINDOW_TO_LLM, 2, True)
    assert (plan.send, plan.fresh, plan.consumed) == (True, True, True)
    window = plan.status.context_window
    assert [m.role for m in window] == ["system", "user", "assistant", "user"]
    assert plan.status.message_count == 4
    assert window[-1].content == (
        f"Your answer does not have the required format: {WRONG}. Answer again, with nothing but JSON that fits the"
        " schema: no other text, no code fence."
    )
    assert [(e.type, e.reason) for e in plan.events] == [
        ("Warning", "ResponseFormatCorrection"),
        ("Normal", "SendingContextWindowToLLM"),
    ]
    assert conditions(plan) == [("ResponseFormat", "False", "ResponseFormatCorrection")]
    task = carried_out(task, plan)
    assert decide(task, result=say(BAD)) == TaskPlan(consumed=True)
    assert decide(task) == TaskPlan(send=True)
    corrected = decide(task, result=say(GOOD, turn=2))
    assert conditions(corrected) == [("Complete", "True", "FinalAnswer"), ("ResponseFormat", "True", "Corrected")]
    assert corrected.status is not None
    assert corrected.status.token_usage == TokenUsage(input_tokens=200, total_tokens=200)
    violated = decide(task, result=say("[]", turn=2))
    assert conditions(violated)[-1] == ("Failed", "True", "ResponseFormatViolated")
    assert violated.status is not None
    assert (violated.status.output, violated.status.phase) == ("[]", TaskPhase.FAILED)
    assert violated.status.error == (
        "The answer does not fit the Agent's responseFormat a second time: the answer must be of type object, not []"
    )


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"maxTurns": 1}, ", and maxTurns leaves no turn to correct it"),
        (
            {"budget": {"tokens": 100}},
            ", and no budget is left to correct it (The Task used 100 of its budget of 100 tokens)",
        ),
    ],
)
def test_where_no_turn_is_left_the_answer_is_not_sent_back(spec: Any, why: str) -> None:
    plan = decide(started(**spec), result=say(BAD))
    assert plan.status is not None
    assert conditions(plan) == [("Failed", "True", "ResponseFormatViolated")]
    assert plan.status.error == f"The answer does not fit the Agent's responseFormat{why}: {WRONG}"
    assert (plan.status.output, plan.send) == (BAD, False)


def test_half_a_character_in_an_answer_that_does_not_fit_stops_nobody() -> None:
    """``json`` makes a lone surrogate of an escape, which neither a message nor a condition can hold."""
    plan = decide(started(), result=say(r'{"town": "\ud83d", "city": ["\ud83d"]}'))
    assert plan.status is not None
    assert plan.status.turn == 2
    assert plan.status.context_window[-1].content.encode()
    assert plan.status.conditions[-1].message.encode()


def test_what_cut_the_answer_off_is_told_with_what_is_wrong() -> None:
    plan = decide(started(), result=say('{"city":', incomplete="the model reached its token limit"))
    assert plan.status is not None
    assert plan.status.status_detail.endswith("(the model reached its token limit)")


def test_tool_calls_bind_nobody_to_a_format() -> None:
    plan = decide(started(), result=say("let me see", "fetch__fetch"))
    assert plan.status is not None
    assert plan.status.phase == TaskPhase.TOOL_CALLS_PENDING


def test_a_long_answer_that_is_sent_back_is_stored_like_any_other_message() -> None:
    plan = decide(started(), result=say("x" * 5000))
    assert plan.status is not None
    (stored,) = plan.stored
    assert stored.text == "x" * 5000
    assert plan.status.context_window[2].content_from is not None
    assert list(plan.texts.values()) == ["x" * 5000]


def test_a_correction_waits_like_every_turn() -> None:
    waiting = build_agent(ready=False, responseFormat={"type": "JSONSchema", "jsonSchema": CITY})
    plan = decide(started(), result=say(BAD), agent=waiting)
    assert plan.status is not None
    assert (plan.status.turn, plan.send) == (2, False)


def test_an_agent_that_is_gone_asks_for_nothing() -> None:
    plan = decide(started(), result=say(BAD), agent=None)
    assert conditions(plan) == [("Complete", "True", "FinalAnswer")]


def test_the_model_is_told_of_the_format() -> None:
    told = build_response_format(AGENT)
    assert told is not None
    assert (told.name, told.json_schema) == ("answer", CITY)
    named = build_agent(responseFormat={"type": "JSONSchema", "name": "city", "jsonSchema": CITY})
    told = build_response_format(named)
    assert told is not None
    assert told.name == "city"
    assert build_response_format(build_agent()) is None
    assert build_response_format(None) is None
