"""Traces that span processes: ids always, spans only where somebody collects them.

A run's own span is decided before it is known when it ends: its ids are made at the start, stored in the Task's
``status.spanContext``, carried in NATS headers, and the span itself is emitted under exactly these ids when the run is
over. Without an OTLP endpoint in the environment the OpenTelemetry SDK is not even imported; ids are still made and
handed on, so that a log line can be followed.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Literal, Protocol

from kubechain_common.api.v1alpha1.status import SpanContext

AttributeValue = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, AttributeValue]
SpanKind = Literal["internal", "server", "client", "producer", "consumer"]

_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_current: ContextVar[SpanContext | None] = ContextVar("kubechain_span", default=None)


class Recording(Protocol):
    """A span that is being recorded."""

    def set_attribute(self, key: str, value: AttributeValue) -> None: ...
    def record_error(self, message: str, error: BaseException | None) -> None: ...
    def end(self) -> None: ...


class Recorder(Protocol):
    """Where spans go: the SDK (telemetry.otlp), or nowhere."""

    def start(
        self, name: str, context: SpanContext, parent: SpanContext | None, kind: SpanKind, attributes: Attributes
    ) -> Recording: ...

    def emit(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        start: datetime,
        end: datetime,
        attributes: Attributes,
        error: str | None,
    ) -> None: ...

    def shutdown(self) -> None: ...


_recorder: Recorder | None = None


def configure_tracing(service: str) -> None:
    """Start to export when OTEL_EXPORTER_OTLP_ENDPOINT (or its traces variant) is set; otherwise do nothing."""
    global _recorder
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    from kubechain_common.telemetry.otlp import OtlpRecorder

    _recorder = OtlpRecorder(service if service.startswith("kubechain-") else f"kubechain-{service}")


def shutdown_tracing() -> None:
    """Flush what is left and stop exporting. Blocks for as long as the export takes."""
    global _recorder
    recorder, _recorder = _recorder, None
    if recorder is not None:
        recorder.shutdown()


def new_span_context(parent: SpanContext | None = None) -> SpanContext:
    """Fresh ids: a new trace, or a new span within the parent's, if that has ids of the kind that traces have."""
    trace_id = parent.trace_id if parent is not None and names_a_span(parent) else secrets.token_hex(16)
    return SpanContext(trace_id=trace_id, span_id=secrets.token_hex(8))


def span_context_of(name: str, parent: SpanContext | None = None) -> SpanContext:
    """The ids that ``name``, unique for all time, always has: a trace of its own, or a span within the parent's."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    trace_id = parent.trace_id if parent is not None and names_a_span(parent) else digest[:32]
    return SpanContext(trace_id=trace_id, span_id=digest[32:48])


def current_context() -> SpanContext | None:
    """The span that this task is in, if any."""
    return _current.get()


class Span:
    """What ``span`` gives: its ids, and a place for attributes."""

    def __init__(self, context: SpanContext, recording: Recording | None) -> None:
        self.context = context
        self._recording = recording

    @property
    def is_recorded(self) -> bool:
        """Whether attributes go anywhere: costly ones need not be built otherwise."""
        return self._recording is not None

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        if self._recording is not None:
            self._recording.set_attribute(key, value)

    def set_error(self, message: str) -> None:
        """Mark the span as failed without an exception."""
        if self._recording is not None:
            self._recording.record_error(message, None)


@contextmanager
def span(
    name: str,
    parent: SpanContext | None = None,
    *,
    kind: SpanKind = "internal",
    attributes: Attributes | None = None,
) -> Iterator[Span]:
    """Record the body as a span: below ``parent``, else below the current span, else as a new trace.

    An exception is recorded and goes on; a cancellation is not a failure.
    """
    parent = parent if parent is not None and names_a_span(parent) else _current.get()
    context = new_span_context(parent)
    recording = None if _recorder is None else _recorder.start(name, context, parent, kind, attributes or {})
    token = _current.set(context)
    try:
        yield Span(context, recording)
    except asyncio.CancelledError:
        if recording is not None:
            recording.set_attribute("kubechain.cancelled", True)
        raise
    except Exception as error:
        if recording is not None:
            recording.record_error(str(error), error)
        raise
    finally:
        _current.reset(token)
        if recording is not None:
            recording.end()


def emit_span(
    name: str,
    context: SpanContext,
    start: datetime,
    end: datetime,
    attributes: Attributes | None = None,
    error: str | None = None,
    *,
    parent: SpanContext | None = None,
) -> None:
    """Emit a finished span under exactly the ids of ``context``; its children may long be exported.

    It is a root unless it has a ``parent`` in the same trace.
    """
    if _recorder is None or not names_a_span(context):
        return
    if parent is not None and not (names_a_span(parent) and parent.trace_id == context.trace_id):
        parent = None
    _recorder.emit(name, context, parent, start, end, attributes or {}, error)


def names_a_span(context: SpanContext) -> bool:
    """Whether its ids are some. They come from objects, in which anybody may have written anything."""
    return parse_traceparent(traceparent_of(context)) is not None


def traceparent_of(context: SpanContext) -> str:
    """The W3C header value, always sampled."""
    return f"00-{context.trace_id}-{context.span_id}-01"


def parse_traceparent(value: str | None) -> SpanContext | None:
    """The ids in a W3C traceparent; None when it is absent, malformed or all zero."""
    match = _TRACEPARENT.match(value or "")
    if match is None:
        return None
    trace_id, span_id = match.groups()
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return SpanContext(trace_id=trace_id, span_id=span_id)
