"""An OTLP/HTTP collector that keeps what it gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.e2e.support.background import BackgroundLoop


@dataclass(frozen=True)
class SpanSeen:
    """A span as it was exported; ids in hexadecimal, ``parent`` empty for a root."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    start: int
    end: int
    attributes: dict[str, Any] = field(default_factory=dict)
    kind: str = ""
    text: str = field(default="", repr=False)
    """Everything that was exported, for searches."""


@dataclass
class SpanStore:
    """Serves POST /v1/traces at ``url``."""

    url: str = ""
    spans: list[SpanSeen] = field(default_factory=list)

    @classmethod
    def serve(cls, loop: BackgroundLoop) -> Self:
        store = cls()
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/traces", store._handle)
        store.url = loop.serve(app)
        return store

    def of_trace(self, trace: str) -> list[SpanSeen]:
        return [span for span in list(self.spans) if span.trace == trace]

    async def _handle(self, request: web.Request) -> web.Response:
        exported = ExportTraceServiceRequest.FromString(await request.read())
        for resource in exported.resource_spans:
            names = (a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            service = next(names, "")
            for scope in resource.scope_spans:
                self.spans += [
                    SpanSeen(
                        service,
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        {a.key: _value_of(a.value) for a in span.attributes},
                        Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                        f"{resource.resource}{span}",
                    )
                    for span in scope.spans
                ]
        return web.Response(body=b"", content_type="application/x-protobuf")


def _value_of(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value_of(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None
