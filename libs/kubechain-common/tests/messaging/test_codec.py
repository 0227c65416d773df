"""Messages to bytes and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.messages import LLMResult, ObjectRef, ToolRequest
from kubechain_common.messaging import PoisonMessage
from kubechain_common.messaging.codec import build_headers, claim_of, decode, encode, trace_of

REF = ObjectRef(namespace="default", name="hello", uid="u-1")


def build_request(arguments: str = "{}") -> ToolRequest:
    return ToolRequest(
        call=REF,
        execution_key="k",
        server=REF,
        tool="fetch",
        arguments=arguments,
        requested_at=datetime(2026, 11, 23, 12, tzinfo=UTC),
    )


@given(st.text())
def test_a_message_survives_the_wire(arguments: str) -> None:
    message = build_request(arguments)
    assert decode(ToolRequest, encode(message)) == message


def test_the_wire_is_camel_case_without_absent_fields() -> None:
    wire = json.loads(encode(LLMResult(task=REF, turn=2, outcome="Error", stop_reason="stop")))
    assert wire["stopReason"] == "stop"
    assert wire["v"] == 1
    assert "message" not in wire


def test_fields_of_a_newer_version_are_ignored() -> None:
    wire = json.loads(encode(build_request())) | {"priority": "high"}
    assert decode(ToolRequest, json.dumps(wire).encode()) == build_request()


@pytest.mark.parametrize(
    "data",
    [b"", b"not json", b"{}", b"[]", json.dumps(json.loads(encode(build_request())) | {"v": 2}).encode()],
    ids=["empty", "no json", "no fields", "no object", "unknown version"],
)
def test_what_cannot_be_understood_is_poison(data: bytes) -> None:
    with pytest.raises(PoisonMessage, match="not a ToolRequest this version understands"):
        decode(ToolRequest, data)


def test_the_reason_of_poison_repeats_nothing_of_the_message() -> None:
    with pytest.raises(PoisonMessage) as caught:
        decode(ToolRequest, b'{"v": 1, "tool": {"api_key": "s3cret"}}')
    assert "tool: Input should be a valid string" in caught.value.reason
    assert "s3cret" not in caught.value.reason


def test_headers_carry_identity_trace_and_claim() -> None:
    trace = SpanContext(trace_id="a" * 32, span_id="b" * 16)
    headers = build_headers(msg_id="u-1.2", trace=trace, once=True, claim="c")
    assert headers == {
        "Nats-Msg-Id": "u-1.2",
        "Nats-Expected-Last-Subject-Sequence": "0",
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
        "Kubechain-Claim": "c",
    }
    assert trace_of(headers) == trace
    assert claim_of(headers) == "c"


def test_absent_headers_are_absent() -> None:
    assert build_headers(trace=SpanContext()) == {}
    assert build_headers(trace=SpanContext(trace_id="x\r\nNats-Msg-Id: 1", span_id="b" * 16)) == {}
    assert trace_of(None) is None
    assert claim_of(None) is None
