"""Traces: ids without a collector, and real spans at a real OTLP receiver."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.telemetry import tracing
from kubechain_common.telemetry.tracing import (
    configure_tracing,
    current_context,
    emit_span,
    new_span_context,
    parse_traceparent,
    shutdown_tracing,
    span,
    span_context_of,
    traceparent_of,
)


class Collector:
    """An OTLP/HTTP receiver that keeps what it gets."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.services: set[str] = set()
        self.spans: dict[str, ProtoSpan] = {}

    async def handle(self, request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest.FromString(await request.read())
        for resource in message.resource_spans:
            self.services |= {a.value.string_value for a in resource.resource.attributes if a.key == "service.name"}
            for scope in resource.scope_spans:
                self.spans |= {s.name: s for s in scope.spans}
        body = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=body, content_type="application/x-protobuf")


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{runner.addresses[0][1]}")
    configure_tracing("llm-gateway")
    yield collector
    await asyncio.to_thread(shutdown_tracing)
    await runner.cleanup()


async def export() -> None:
    await asyncio.to_thread(shutdown_tracing)


def ids(proto: ProtoSpan) -> SpanContext:
    return SpanContext(trace_id=proto.trace_id.hex(), span_id=proto.span_id.hex())


def test_whoever_makes_the_ids_of_a_name_makes_the_same() -> None:
    parent = new_span_context()
    own, below = span_context_of("uid-1"), span_context_of("uid-1", parent)
    assert own == span_context_of("uid-1") != span_context_of("uid-2")
    assert parse_traceparent(traceparent_of(own)) == own
    assert (below.trace_id, below.span_id) == (parent.trace_id, own.span_id)
    assert span_context_of("uid-1", SpanContext(trace_id="no", span_id="ids")) == own


async def test_a_run_is_one_trace_with_the_right_parents(collector: Collector) -> None:
    root = new_span_context()
    with span("llm call", root, kind="client", attributes={"llm": "gpt-4o"}) as call:
        call.set_attribute("tokens", 7)
        with span("parse") as parse:
            pass
    start, end = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC), datetime(2026, 11, 23, 12, 0, 1, 500_000, tzinfo=UTC)
    emit_span("Task", root, start, end, {"task": "default/hello"})
    await export()

    assert collector.services == {"kubechain-llm-gateway"}
    spans = collector.spans
    assert {proto.trace_id.hex() for proto in spans.values()} == {root.trace_id}
    assert ids(spans["Task"]) == root
    assert spans["Task"].parent_span_id == b""
    assert (spans["Task"].start_time_unix_nano, spans["Task"].end_time_unix_nano) == (
        1_795_435_200_000_000_000,
        1_795_435_201_500_000_000,
    )
    assert ids(spans["llm call"]) == call.context
    assert spans["llm call"].parent_span_id.hex() == root.span_id
    assert spans["llm call"].kind == ProtoSpan.SPAN_KIND_CLIENT
    assert ids(spans["parse"]) == parse.context
    assert spans["parse"].parent_span_id.hex() == call.context.span_id
    attributes = {a.key: a.value for a in spans["llm call"].attributes}
    assert attributes["llm"].string_value == "gpt-4o"
    assert attributes["tokens"].int_value == 7


async def test_a_span_that_is_known_by_its_ids_hangs_below_its_parent(collector: Collector) -> None:
    now, parent = datetime.now(UTC), new_span_context()
    emit_span("below", new_span_context(parent), now, now, parent=parent)
    emit_span("elsewhere", new_span_context(), now, now, parent=parent)
    emit_span("odd", new_span_context(), now, now, parent=SpanContext(trace_id="no", span_id="ids"))
    await export()
    parents = {name: proto.parent_span_id.hex() for name, proto in collector.spans.items()}
    assert parents == {"below": parent.span_id, "elsewhere": "", "odd": ""}


@pytest.mark.parametrize(
    "odd",
    [
        SpanContext(trace_id="no trace", span_id="ab" * 8),
        SpanContext(trace_id="ab" * 16, span_id="no span"),
        SpanContext(trace_id="ab" * 16),
        SpanContext(trace_id="0" * 32, span_id="ab" * 8),
    ],
)
async def test_a_parent_that_names_no_span_is_none(collector: Collector, odd: SpanContext) -> None:
    assert new_span_context(odd).trace_id != odd.trace_id
    with span("alone", odd):
        pass
    with span("outer") as outer, span("inner", odd):
        pass
    await export()
    assert collector.spans["alone"].parent_span_id == b""
    assert collector.spans["inner"].parent_span_id.hex() == outer.context.span_id


async def test_an_exception_is_recorded_and_goes_on(collector: Collector) -> None:
    with pytest.raises(ValueError, match="boom"), span("work"):
        raise ValueError("boom")
    await export()
    proto = collector.spans["work"]
    assert proto.status.code == Status.STATUS_CODE_ERROR
    assert [event.name for event in proto.events] == ["exception"]


async def test_a_cancellation_is_not_a_failure(collector: Collector) -> None:
    async def wait() -> None:
        with span("wait"):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await wait()
    await export()
    assert collector.spans["wait"].status.code == Status.STATUS_CODE_UNSET


async def test_a_failed_root_span_says_why(collector: Collector) -> None:
    now = datetime.now(UTC)
    emit_span("Task", new_span_context(), now, now, error="The LLM refused.")
    with span("call") as call:
        call.set_error("no answer")
    await export()
    assert collector.spans["Task"].status.message == "The LLM refused."
    assert collector.spans["call"].status.message == "no answer"


async def test_concurrent_tasks_do_not_mix_their_spans(collector: Collector) -> None:
    async def run(name: str) -> tuple[str, str]:
        with span(name) as outer:
            await asyncio.sleep(0)
            with span(f"{name}.inner"):
                await asyncio.sleep(0)
        return f"{name}.inner", outer.context.span_id

    pairs = await asyncio.gather(*(run(f"task-{index}") for index in range(5)))
    await export()
    for inner, parent in pairs:
        assert collector.spans[inner].parent_span_id.hex() == parent


def test_without_an_endpoint_ids_are_made_all_the_same() -> None:
    assert current_context() is None
    with span("outer", attributes={"a": 1}) as outer:
        outer.set_attribute("b", 2)
        outer.set_error("ignored")
        assert current_context() == outer.context
        with span("inner") as inner:
            assert inner.context.trace_id == outer.context.trace_id
            assert inner.context.span_id != outer.context.span_id
    assert current_context() is None
    emit_span("Task", new_span_context(), datetime.now(UTC), datetime.now(UTC))


def test_without_an_endpoint_the_sdk_is_not_imported() -> None:
    code = (
        "import sys; from kubechain_common.telemetry import tracing; tracing.configure_tracing('x');"
        "print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={})
    assert result.stdout.strip() == "[]"


def test_the_sdk_can_be_disabled_by_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    configure_tracing("x")
    assert tracing._recorder is None


def test_traceparent_goes_both_ways() -> None:
    context = new_span_context()
    assert parse_traceparent(traceparent_of(context)) == context


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "garbage",
        "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "0" * 16 + "-01",
        "00-xyz",
    ],
)
def test_a_traceparent_that_names_no_span_is_none(value: str | None) -> None:
    assert parse_traceparent(value) is None
