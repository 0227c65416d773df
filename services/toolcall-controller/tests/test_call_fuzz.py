"""The decision about arbitrary tool calls, and about arbitrary messages in place of their results."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.v1alpha1 import ContactChannel, MCPServer, Task, TaskRunToolCall
from kubechain_common.messages import ToolResult
from kubechain_common.messages.human import HumanResult
from kubechain_common.messages.topology import human_result_subject, tool_result_subject
from kubechain_common.messaging import codec
from kubechain_common.messaging.errors import PoisonMessage
from kubechain_common.testing.arbitrary import JSON, NAMES, fuzz, models, resources
from kubechain_toolcall_controller.core.call_decision import decide_call, decide_refused
from kubechain_toolcall_controller.core.plan import CallSnapshot
from kubechain_toolcall_controller.core.sub_task import SubTask
from kubechain_toolcall_controller.core.unreadable import build_unreadable_report, build_unreadable_result

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLOSE = {"name": NAMES}
REF = st.fixed_dictionaries({"namespace": st.just("default"), "name": NAMES, "uid": st.just("uid-1")})

MOMENT = st.just("2026-01-01T00:00:00.123456Z")

results = models(ToolResult, {"v": st.just(1), "call": REF, "startedAt": MOMENT, "completedAt": MOMENT})
reports = models(HumanResult, {"v": st.just(1), "call": REF, "sentAt": MOMENT})
snapshots = st.builds(
    CallSnapshot,
    call=resources(TaskRunToolCall, CLOSE),
    now=st.just(NOW),
    server=st.none() | resources(MCPServer, CLOSE),
    server_asked=st.booleans(),
    result=st.none() | results,
    sent_at=st.none() | st.just(NOW),
    channel=st.none() | resources(ContactChannel, CLOSE),
    asked=st.none() | reports,
    stopped=st.none() | st.booleans(),
    task_over=st.none() | st.booleans(),
    sub_task=st.builds(
        SubTask,
        task=st.none() | resources(Task, CLOSE),
        asked=st.booleans(),
        begun_before=st.booleans(),
        forbidden=st.booleans(),
        refused=st.text(max_size=5),
    ),
)


@fuzz
@given(snapshots, st.text(max_size=12))
def test_every_call_has_a_next_step(snapshot: CallSnapshot, refusal: str) -> None:
    plan = decide_call(snapshot)
    if plan.status is not None:
        plan.status.to_wire()
    if plan.request is not None:
        codec.encode(plan.request)
    if plan.question is not None:
        codec.encode(plan.question)
    if plan.decision is not None:
        plan.decision.to_wire()
    if plan.delegate is not None:
        plan.delegate.to_wire()
    refused = decide_refused(snapshot, refusal).status
    assert refused is not None
    assert refused.phase == "Failed"


@fuzz
@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()) | results.map(codec.encode))
def test_every_message_is_a_result_or_a_failure_of_its_call(data: bytes) -> None:
    try:
        result = codec.decode(ToolResult, data)
    except PoisonMessage as poison:
        unreadable = build_unreadable_result(tool_result_subject("default", "uid-1"), poison.reason)
        assert unreadable is not None
        result = codec.decode(ToolResult, codec.encode(unreadable))
        assert (result.outcome, result.reason) == ("Failed", "OutcomeUnknown")
    assert result.call.uid == "uid-1"


@fuzz
@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()) | reports.map(codec.encode))
def test_every_message_is_a_report_or_stands_for_one(data: bytes) -> None:
    try:
        report = codec.decode(HumanResult, data)
    except PoisonMessage as poison:
        unreadable = build_unreadable_report(human_result_subject("default", "uid-1"), poison.reason)
        assert unreadable is not None
        report = codec.decode(HumanResult, codec.encode(unreadable))
        assert report.outcome == "Sent"
    assert report.call.uid == "uid-1"
