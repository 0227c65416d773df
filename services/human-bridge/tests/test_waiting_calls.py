from __future__ import annotations

from typing import Any

from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.kube.client import KubeClient
from kubechain_common.messages import ObjectRef
from kubechain_common.testing.builders import build_call
from kubechain_human_bridge.waiting_calls import MAX_ARGUMENTS, WaitingCalls, strip_settled, thin_out, was_asked

WAITING = {"phase": "Pending", "status": "AwaitingHumanApproval", "externalCallID": "ec-1"}
DONE = {"phase": "Succeeded", "status": "Succeeded", "result": "r" * 5000}


def keep(call: TaskRunToolCall) -> TaskRunToolCall:
    """The call on its way through the informer."""
    raw: dict[str, Any] = call.to_wire()
    strip_settled(raw)
    return thin_out(TaskRunToolCall.model_validate(raw))


def follow(*calls: TaskRunToolCall) -> WaitingCalls:
    waiting = WaitingCalls(KubeClient("test"))
    for call in calls:
        waiting.informer.observe(call)
    return waiting


def test_a_waiting_call_is_kept_with_what_a_person_wants_to_know() -> None:
    trace = {"traceID": "1" * 32, "spanID": "2" * 16}
    call = build_call(status=WAITING, arguments='{"url": "u"}', spanContext=trace)
    kept = keep(call)
    assert kept.spec == call.spec.model_copy(update={"span_context": None})
    assert kept.status == call.status
    assert (kept.key, kept.uid) == (call.key, call.uid)
    assert kept.metadata.creation_timestamp == call.metadata.creation_timestamp


def test_long_arguments_are_cut() -> None:
    kept = keep(build_call(status=WAITING, arguments="x" * 100_000))
    assert len(kept.spec.arguments) == MAX_ARGUMENTS
    assert kept.spec.arguments.endswith("...")


def test_an_answered_call_is_kept_without_its_long_texts() -> None:
    decision = {"approved": False, "comment": "c" * 5000, "by": "alice", "arguments": "a" * 5000}
    kept = keep(build_call(status={**DONE, "externalCallID": "ec-1"}, decision=decision, arguments="x" * 5000))
    assert kept.spec.tool_ref.name == "fetch__fetch"
    assert kept.spec.decision is not None
    assert (kept.spec.decision.by, kept.spec.decision.approved) == ("alice", False)
    assert len(kept.model_dump_json()) < 3000


def test_an_answer_that_waits_to_be_taken_is_no_waiting_call() -> None:
    call = build_call(status=WAITING, decision={"approved": True})
    assert not keep(call).awaits_human
    assert list(follow(call).waiting()) == []


def test_a_call_under_way_is_not_taken_for_a_finished_one() -> None:
    assert not keep(build_call(status={"phase": "Running"})).finished
    assert not keep(build_call()).awaits_human


def test_waiting_calls_are_found_by_reference_and_by_external_id() -> None:
    call = build_call(status=WAITING)
    other = build_call("other", status=DONE)
    waiting = follow(call, other)
    assert [found.key for found in waiting.waiting()] == [call.key]
    assert waiting.count() == 1
    assert waiting.find(ObjectRef.of(call)) is not None
    assert waiting.find(ObjectRef.of(other)) is None
    assert waiting.find(ObjectRef(namespace="default", name=call.name, uid="earlier")) is None
    assert waiting.find_external("default", "ec-1") == waiting.find(ObjectRef.of(call))
    assert waiting.find_external("other", "ec-1") is None


def test_a_call_that_was_answered_is_not_found_any_more() -> None:
    waiting = follow(build_call(status=WAITING))
    answered = build_call(status=WAITING, decision={"approved": True})
    metadata = answered.metadata.model_copy(update={"resource_version": "2"})
    waiting.informer.observe(answered.model_copy(update={"metadata": metadata}))
    assert (list(waiting.waiting()), waiting.count(), waiting.find_external("default", "ec-1")) == ([], 0, None)


def test_only_a_true_condition_says_that_a_person_was_asked() -> None:
    condition = {"type": "HumanAsked", "status": "False", "reason": "r", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    assert not was_asked(build_call(status=WAITING))
    assert not was_asked(build_call(status={**WAITING, "conditions": [condition]}))
    assert was_asked(build_call(status={**WAITING, "conditions": [condition | {"status": "True"}]}))
