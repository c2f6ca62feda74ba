"""A collector of spans: takes OTLP over HTTP as protobuf, and keeps what it was sent, read and to the byte."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import FastAPI, Request, Response
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.support.server import serving


@dataclass(frozen=True, slots=True)
class CollectedSpan:
    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    """Empty: the trace begins with it."""
    attributes: Mapping[str, object]
    links: tuple[tuple[str, str], ...]
    """Trace, span."""
    failed: bool

    def __str__(self) -> str:
        return f"{self.service}: {self.name}"


@dataclass(slots=True)
class Collector:
    url: str = ""
    spans: list[CollectedSpan] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    """Of the latest request."""
    raw: bytearray = field(default_factory=bytearray)

    def of_trace(self, trace_id: str) -> list[CollectedSpan]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def orphans(self, trace_id: str, *, known: str = "") -> list[str]:
        """Spans of the trace whose parent nobody told of; `known`: a span of somebody else's."""
        spans = self.of_trace(trace_id)
        there = {span.span_id for span in spans} | {known, ""}
        return [str(span) for span in spans if span.parent_id not in there]

    def take(self, body: bytes) -> None:
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {item.key: _value(item.value) for item in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        CollectedSpan(
                            service=str(named["service.name"]),
                            name=span.name,
                            kind=SpanMessage.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                            trace_id=span.trace_id.hex(),
                            span_id=span.span_id.hex(),
                            parent_id=span.parent_span_id.hex(),
                            attributes={item.key: _value(item.value) for item in span.attributes},
                            links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                            failed=span.status.code == Status.STATUS_CODE_ERROR,
                        )
                    )


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    app = FastAPI(openapi_url=None)

    @app.post("/v1/traces")
    async def traces(request: Request) -> Response:
        collector.headers = dict(request.headers)
        collector.take(await request.body())
        return Response(media_type="application/x-protobuf")

    async with serving(app) as url:
        collector.url = url
        yield collector
