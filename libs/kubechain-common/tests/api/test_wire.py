"""The wire form: camelCase, no absent fields, timestamps as Kubernetes prints them, unknown fields survived."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from kubechain_common.api.v1alpha1 import ALL_KINDS, Resource, Task, TaskRunToolCall
from kubechain_common.api.v1alpha1.conversation import TokenUsage
from kubechain_common.api.v1alpha1.meta import ObjectMeta, Ref
from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.api.v1alpha1.task import TaskPhase, TaskSpec, TaskStatus
from kubechain_common.api.v1alpha1.taskruntoolcall import TaskRunToolCallSpec, ToolCallPhase


def test_a_task_as_the_api_server_sends_it() -> None:
    task = Task.model_validate(
        {
            "apiVersion": "kubechain.humanlayer.dev/v1alpha1",
            "kind": "Task",
            "metadata": {
                "name": "hello-world-1",
                "namespace": "default",
                "creationTimestamp": "2025-04-05T01:04:15Z",
                "managedFields": [{"manager": "kubectl"}],
            },
            "spec": {"agentRef": {"name": "my-assistant"}, "userMessage": "What is the capital of the moon?"},
            "status": {"phase": "FinalAnswer", "spanContext": {"spanID": "648c", "traceID": "d3fb"}, "newer": 1},
        }
    )
    assert task.key == ("default", "hello-world-1")
    assert task.finished
    assert task.status.span_context == SpanContext(trace_id="d3fb", span_id="648c")
    assert task.spec.to_wire() == {
        "agentRef": {"name": "my-assistant"},
        "userMessage": "What is the capital of the moon?",
    }


@pytest.mark.parametrize("phase", [None, *TaskPhase])
def test_two_phases_of_a_task_are_final(phase: TaskPhase | None) -> None:
    task = Task(spec=TaskSpec(agent_ref=Ref(name="a"), user_message="hi"), status=TaskStatus(phase=phase))
    assert task.finished == (phase in {TaskPhase.FINAL_ANSWER, TaskPhase.FAILED})


def test_a_new_tool_call_is_pending_and_names_its_micros() -> None:
    call = TaskRunToolCall(
        metadata=ObjectMeta(name="c"),
        spec=TaskRunToolCallSpec(
            tool_call_id="call_1",
            task_run_ref=Ref(name="t"),
            tool_ref=Ref(name="fetch__fetch"),
            arguments="{}",
            requested_at=datetime(2025, 4, 1, 18, 9, 2, 12, tzinfo=timezone(timedelta(hours=2))),
        ),
    )
    assert call.status.phase is ToolCallPhase.PENDING
    assert not call.finished
    assert call.spec.to_wire()["requestedAt"] == "2025-04-01T16:09:02.000012Z"


def test_an_owner_reference_controls() -> None:
    task = Task(metadata=ObjectMeta(name="t", uid="u"), spec=TaskSpec(agent_ref=Ref(name="a"), user_message="hi"))
    assert task.build_owner_reference().to_wire() == {
        "apiVersion": "kubechain.humanlayer.dev/v1alpha1",
        "kind": "Task",
        "name": "t",
        "uid": "u",
        "controller": True,
    }


def test_an_object_on_its_way_out_is_deleting() -> None:
    assert ObjectMeta(deletion_timestamp=datetime(2025, 4, 5, tzinfo=UTC)).deleting
    assert not ObjectMeta().deleting


def test_token_usage_adds_up() -> None:
    one = TokenUsage(input_tokens=1, output_tokens=2, total_tokens=3)
    assert (one + one).to_wire() == {"inputTokens": 2, "outputTokens": 4, "totalTokens": 6}


def test_what_no_provider_told_of_token_usage_stays_absent() -> None:
    told = TokenUsage(input_tokens=9, cached_input_tokens=5, cache_write_tokens=1)
    untold = TokenUsage(input_tokens=1, reasoning_tokens=0)
    total = {"inputTokens": 10, "outputTokens": 0, "totalTokens": 0, "cachedInputTokens": 5, "cacheWriteTokens": 1}
    assert (told + untold).to_wire() == (untold + told).to_wire() == {**total, "reasoningTokens": 0}
    assert "cachedInputTokens" not in (untold + untold).to_wire()


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_kind_is_named_like_its_class(kind: type[Resource]) -> None:
    assert kind.crd.kind == kind.__name__
    assert kind.crd.plural == kind.__name__.lower() + "s"
    assert kind.crd.singular == kind.__name__.lower()
