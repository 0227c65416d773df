"""What is said about a Task and its calls."""

from __future__ import annotations

from typing import Any

import pytest

from kubechain_cli.taskrun.steps import Step, describe_call, describe_task, said_last
from kubechain_common.api.v1alpha1 import Task, TaskRunToolCall


def task(**status: Any) -> Task:
    spec = {"agentRef": {"name": "a"}, "userMessage": "hi"}
    return Task.model_validate({"metadata": {"name": "t"}, "spec": spec, "status": status})


def call(**status: Any) -> TaskRunToolCall:
    spec = {
        "toolCallId": "c1",
        "taskRunRef": {"name": "t"},
        "toolRef": {"name": "fetch__fetch"},
        "arguments": '{"url":"https://x"}',
    }
    return TaskRunToolCall.model_validate({"metadata": {"name": "t-1-tc-01"}, "spec": spec, "status": status})


ASKED: dict[str, Any] = {
    "role": "assistant",
    "toolCalls": [{"id": str(i), "function": {"name": "f", "arguments": "{}"}} for i in (1, 2)],
}


@pytest.mark.parametrize(
    ("old", "new", "steps"),
    [
        (None, task(), []),
        (
            None,
            task(phase="Pending", statusDetail='Waiting for agent "a"'),
            [Step("waiting", 'Waiting for agent "a"')],
        ),
        (task(phase="Pending", statusDetail="x"), task(phase="Pending", statusDetail="x"), []),
        (task(phase="Pending", statusDetail="x"), task(phase="Pending", statusDetail="y"), [Step("waiting", "y")]),
        (
            task(phase="Pending", statusDetail="x"),
            task(phase="SendContextWindowToLLM", turn=1),
            [Step("asking", "turn 1: asking the LLM", 1)],
        ),
        (
            task(phase="SendContextWindowToLLM", turn=1, statusDetail="Sending"),
            task(phase="SendContextWindowToLLM", turn=1, statusDetail="LLM is overloaded, next try in 4 s"),
            [Step("progress", "LLM is overloaded, next try in 4 s")],
        ),
        (
            task(phase="SendContextWindowToLLM", turn=1),
            task(phase="ToolCallsPending", turn=1, contextWindow=[ASKED]),
            [Step("progress", "turn 1: the LLM asks for 2 tool calls", 1)],
        ),
        (
            task(phase="SendContextWindowToLLM", turn=2),
            task(phase="FinalAnswer", turn=2, tokenUsage={"totalTokens": 42}),
            [Step("answer", "final answer after 2 turns, 42 tokens")],
        ),
        (
            None,
            task(phase="FinalAnswer", turn=1, tokenUsage={"totalTokens": 42}, cost="0.0007", currency="USD"),
            [Step("answer", "final answer after 1 turn, 42 tokens, 0.0007 USD")],
        ),
        (None, task(phase="FinalAnswer", turn=1), [Step("answer", "final answer after 1 turn")]),
        (None, task(phase="Failed", error="no money"), [Step("error", "failed: no money")]),
        (None, task(phase="Failed"), [Step("error", "failed: the Task says no reason")]),
    ],
)
def test_task(old: Task | None, new: Task, steps: list[Step]) -> None:
    assert describe_task(old, new) == steps


def test_what_was_said_is_told_where_all_of_it_is_known() -> None:
    said = {**ASKED, "content": "Let me see."}
    beginning = {**said, "contentFrom": {"configMapKeyRef": {"name": "t-1", "key": "2"}}}
    assert said_last(task(phase="SendContextWindowToLLM", turn=2, contextWindow=[said])) == ""
    assert said_last(task(phase="ToolCallsPending", turn=1, contextWindow=[said])) == "Let me see."
    assert said_last(task(phase="ToolCallsPending", turn=1, contextWindow=[beginning])) == ""
    assert said_last(task(phase="FinalAnswer", turn=1, output="42", contextWindow=[beginning])) == "42"
    assert said_last(task(phase="Failed", turn=1, output="4", error="no JSON")) == "4"


ASKS = Step("call", 'fetch__fetch {"url":"https://x"}')
APPROVAL = {"phase": "Pending", "status": "AwaitingHumanApproval", "statusDetail": "Waiting for human approval"}
WAITS = Step("waiting", "fetch__fetch: Waiting for human approval (t-1-tc-01)")


@pytest.mark.parametrize(
    ("old", "new", "steps"),
    [
        (None, call(phase="Pending"), [ASKS]),
        (call(phase="Pending"), call(phase="Running"), []),
        (None, call(**APPROVAL), [ASKS, WAITS]),
        (call(**APPROVAL), call(**APPROVAL), []),
        (call(phase="Pending"), call(**APPROVAL), [WAITS]),
        (
            call(phase="Running"),
            call(phase="Succeeded", result="a\n b"),
            [Step("result", "fetch__fetch succeeded: a b")],
        ),
        (call(phase="Succeeded"), call(phase="Succeeded"), []),
        (None, call(phase="Failed", error="boom"), [ASKS, Step("error", "fetch__fetch failed: boom")]),
        (
            call(**APPROVAL),
            call(phase="ToolCallRejected", result="not today"),
            [Step("result", "fetch__fetch was rejected: not today")],
        ),
    ],
)
def test_call(old: TaskRunToolCall | None, new: TaskRunToolCall, steps: list[Step]) -> None:
    assert describe_call(old, new) == steps


def test_a_long_result_is_shortened() -> None:
    (step,) = describe_call(call(phase="Running"), call(phase="Succeeded", result="x" * 100_000))
    assert len(step.text) < 300
    assert step.text.endswith("...")


def test_an_incomplete_answer_says_what_it_lacks() -> None:
    complete = {"type": "Complete", "status": "True", "lastTransitionTime": "2026-11-24T12:00:00Z"}
    detail = "LLM final response received, but the model refused to answer"
    whole = task(phase="FinalAnswer", turn=1, statusDetail="x", conditions=[{**complete, "reason": "FinalAnswer"}])
    part = task(
        phase="FinalAnswer",
        turn=1,
        statusDetail=detail,
        conditions=[{**complete, "reason": "FinalAnswerIncomplete"}],
    )
    assert [step.text for step in describe_task(None, whole)] == ["final answer after 1 turn"]
    assert [step.text for step in describe_task(None, part)] == [f"final answer after 1 turn ({detail})"]
