"""What waits, how it looks, and what may be answered: pure functions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from kubechain_cli.answering.answer import check, describe_unknown, read_arguments
from kubechain_cli.answering.changes import Arrived, Done, Inbox
from kubechain_cli.answering.errors import AnswerError, BadAnswerError, UnknownCallError
from kubechain_cli.answering.rendering import render_hint, render_inbox, render_span
from kubechain_cli.answering.waiting import Waiting, build_waiting, waits
from kubechain_cli.main import app
from kubechain_cli.taskrun.watching import Deleted
from kubechain_common.api.v1alpha1 import ContactChannel, TaskRunToolCall

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SPEC = {
    "toolCallId": "call_1",
    "taskRunRef": {"name": "t"},
    "toolRef": {"name": "fetch__fetch"},
    "toolType": "MCP",
    "arguments": '{"url":"https://example.com"}',
}
WAITING = {"phase": "Pending", "status": "AwaitingHumanApproval", "startTime": "2026-01-02T03:04:05Z"}


def call(status: dict[str, Any] | None = None, meta: dict[str, Any] | None = None, **spec: Any) -> TaskRunToolCall:
    metadata = {"name": "c", "namespace": "ns", "uid": "1", **(meta or {})}
    return TaskRunToolCall.model_validate(
        {"metadata": metadata, "spec": {**SPEC, **spec}, "status": WAITING if status is None else status}
    )


def question(text: str = '{"message":"Which colour?"}') -> TaskRunToolCall:
    return call({**WAITING, "status": "AwaitingHumanInput"}, toolType="HumanContact", arguments=text)


def channel(**spec: Any) -> ContactChannel:
    return ContactChannel.model_validate({"metadata": {"name": "boss"}, "spec": {"type": "inbox", **spec}})


def test_what_waits() -> None:
    assert waits(call())
    assert waits(question())
    assert not waits(call({"phase": "Running"}))
    assert not waits(call(cancel=True))
    assert not waits(call(decision={"approved": True}))
    assert not waits(call(meta={"deletionTimestamp": "2026-01-02T03:04:05Z"}))


def test_the_deadline_is_that_of_the_channel() -> None:
    waiting = build_waiting(call(), "a", channel(timeoutSeconds=60, onTimeout="Approve"))
    assert (waiting.deadline, waiting.on_timeout) == (BEGAN + timedelta(seconds=60), "Approve")
    assert build_waiting(call(), "a", channel(timeoutSeconds=60)).on_timeout == "Reject"
    assert build_waiting(call(), "a", channel()).deadline is None
    assert build_waiting(call(), "a", channel()).on_timeout == ""
    assert build_waiting(call({"status": "AwaitingHumanApproval"}), "a", channel(timeoutSeconds=60)).deadline is None


def test_a_question_that_nobody_answers_fails_whatever_becomes_of_approvals() -> None:
    waiting = build_waiting(question("{}"), "a", channel(timeoutSeconds=60, onTimeout="Approve"))
    assert waiting.on_timeout == "Fail"


def test_the_inbox_as_a_table() -> None:
    now = BEGAN + timedelta(minutes=5)
    items = [
        Waiting(call(), "agent", "boss", BEGAN + timedelta(minutes=15), "Reject"),
        Waiting(question('{"message":"Which\\ncolour?\\u001b[2J"}')),
    ]
    assert render_inbox(items, now).splitlines() == [
        "NAMESPACE  NAME  KIND      TOOL          AGENT  TASK  AGE  DEADLINE",
        "ns         c     Approval  fetch__fetch  agent  t     5m   in 10m (Reject)",
        '    {"url":"https://example.com"}',
        "ns         c     Question  fetch__fetch  -      t     5m   -",
        "    Which",
        "    colour?[2J",
    ]
    assert render_hint(items[1]) == 'kubechain respond c -n ns "your answer"'


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172800, "2d")],
)
def test_spans_are_short(seconds: int, text: str) -> None:
    assert render_span(timedelta(seconds=seconds)) == text


def test_a_late_answer_is_told_who_was_first() -> None:
    given = call(decision={"approved": False, "by": "bob", "at": "2026-01-02T03:04:05Z"})
    with pytest.raises(AnswerError, match=r"Rejected by bob at 2026-01-02 03:04:05 UTC already\."):
        check(given, "decision")
    noted = [{"type": "Answered", "status": "True", "reason": "R", "lastTransitionTime": "2026-01-02T03:04:06Z"}]
    undated = call({**WAITING, "conditions": noted}, decision={"approved": True})
    with pytest.raises(AnswerError, match="Approved by somebody at 2026-01-02 03:04:06 UTC already"):
        check(undated, "decision")


def test_each_kind_takes_its_own_answer() -> None:
    check(call(), "decision")
    check(question(), "response")
    with pytest.raises(BadAnswerError, match="kubechain respond c"):
        check(question(), "decision")
    with pytest.raises(BadAnswerError, match="kubechain approve c"):
        check(call(), "response")


def test_arguments_are_a_json_object() -> None:
    assert read_arguments('{"a": 1}') == '{"a": 1}'
    for text in ("", "{", "1", '"x"'):
        with pytest.raises(BadAnswerError, match="--arguments: The arguments"):
            read_arguments(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"n": NaN}', "not valid JSON: NaN is not a JSON value"),
        ('{"n": [-Infinity]}', "not valid JSON: -Infinity is not a JSON value"),
        ('{"n": 1e999}', "not valid JSON: 1e999 is out of range"),
        ('{"n": "\\ud800"}', "half a surrogate pair"),
        ('{"n": ' + "[" * 100_000, "maximum recursion depth"),
    ],
)
def test_arguments_that_no_tool_could_be_given_do_not_use_up_the_answer(text: str, why: str) -> None:
    with pytest.raises(BadAnswerError, match=f"--arguments: .*{why}"):
        read_arguments(text)
    assert read_arguments('{"n": 1.5}') == '{"n": 1.5}'


def test_an_unknown_call_is_told_with_what_waits() -> None:
    assert "Did you mean a-tc-01?" in describe_unknown("a-tc-1", "ns", ["a-tc-01", "b"])
    many = describe_unknown("zzz", "ns", [f"c{i}" for i in range(12)])
    assert many.endswith("c9 and others.")
    assert "kubechain inbox -A" in describe_unknown("zzz", "ns", [])


def test_exit_codes() -> None:
    assert [error.exit_code for error in (AnswerError, UnknownCallError, BadAnswerError)] == [1, 2, 2]


def test_a_watcher_hears_of_each_call_once() -> None:
    inbox = Inbox()
    assert inbox.notice(call({"phase": "Running"})) is None
    assert inbox.notice(call()) == Arrived(call())
    assert inbox.notice(call({**WAITING, "statusDetail": "asking again"})) is None
    assert inbox.notice(call(meta={"uid": "2"})) == Arrived(call(meta={"uid": "2"}))
    answered = call(decision={"approved": True, "by": "bob"})
    assert inbox.notice(answered) == Done(("ns", "c"), "Approved by bob")
    assert inbox.notice(answered) is None
    assert inbox.notice(Deleted("ns", "c")) is None


@pytest.mark.parametrize(
    ("sight", "how"),
    [
        (Deleted("ns", "c"), "Deleted"),
        (call(cancel=True), "Cancelled"),
        (call({"phase": "Failed", "statusDetail": "nobody answered"}), "nobody answered"),
        (call({"phase": "Failed"}), "Failed"),
    ],
)
def test_why_a_call_waits_no_more(sight: TaskRunToolCall | Deleted, how: str) -> None:
    inbox = Inbox()
    inbox.notice(call())
    assert inbox.notice(sight) == Done(("ns", "c"), how)


@pytest.mark.parametrize("name", ["inbox", "approve", "reject", "respond"])
def test_each_command_has_help(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert "--namespace" in result.output
