"""The OpenTelemetry SDK behind ``tracing``; imported only when an endpoint is configured, because it costs memory.

Ids are made by ``tracing``, not by the SDK: the id generator returns what was put into it just before a span starts.
"""

from __future__ import annotations

from contextvars import Token
from datetime import datetime

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanKind, Status, StatusCode, TraceFlags

from kubechain_common.api.v1alpha1.status import SpanContext
from kubechain_common.telemetry import tracing

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NANOS = 1_000_000_000


class _PresetIds(IdGenerator):
    """Starting a span is synchronous, so one slot is enough."""

    def __init__(self) -> None:
        self.next = SpanContext()

    def generate_trace_id(self) -> int:
        return int(self.next.trace_id, 16)

    def generate_span_id(self) -> int:
        return int(self.next.span_id, 16)


def _remote(context: SpanContext) -> Context:
    parent = trace.SpanContext(int(context.trace_id, 16), int(context.span_id, 16), True, _SAMPLED)
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


class _Recording:
    """A running SDK span, current in OpenTelemetry's own context too, so that instrumented libraries join in."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._token: Token[Context] = otel_context.attach(trace.set_span_in_context(span))

    def set_attribute(self, key: str, value: tracing.AttributeValue) -> None:
        self._span.set_attribute(key, value)

    def record_error(self, message: str, error: BaseException | None) -> None:
        if error is not None:
            self._span.record_exception(error)
        self._span.set_status(Status(StatusCode.ERROR, message))

    def end(self) -> None:
        otel_context.detach(self._token)
        self._span.end()


class OtlpRecorder:
    """Exports in batches over OTLP/HTTP; the SDK reads the OTEL_* variables itself."""

    def __init__(self, service_name: str) -> None:
        self._ids = _PresetIds()
        self._provider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: service_name}), id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("kubechain")

    def start(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: tracing.SpanKind,
        attributes: tracing.Attributes,
    ) -> _Recording:
        self._ids.next = context
        return _Recording(
            self._tracer.start_span(
                name,
                context=Context() if parent is None else _remote(parent),
                kind=SpanKind[kind.upper()],
                attributes=dict(attributes),
            )
        )

    def emit(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        start: datetime,
        end: datetime,
        attributes: tracing.Attributes,
        error: str | None,
    ) -> None:
        self._ids.next = context
        span = self._tracer.start_span(
            name,
            context=Context() if parent is None else _remote(parent),
            attributes=dict(attributes),
            start_time=int(start.timestamp() * _NANOS),
        )
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(end_time=int(end.timestamp() * _NANOS))

    def shutdown(self) -> None:
        self._provider.shutdown()
