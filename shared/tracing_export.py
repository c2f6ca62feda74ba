"""The only place that knows OpenTelemetry's SDK; imported when tracing is on.

Spans are queued, and a thread of the SDK hands them over: no service waits for a collector. What does not fit into the
queue, or is not taken within the exporter's time, is dropped and counted, and the log says so once until it is well.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from shared import metrics
from shared.settings import CommonSettings
from shared.trace_context import is_sampled, names_no_span, span_id_of, trace_id_of

logger = logging.getLogger(__name__)

_QUEUE_MOST: Final = 8192
_AT_ONCE: Final = 512
_EVERY_MS: Final = 1000.0
_TRACES_PATH: Final = "/v1/traces"
# The rightmost 56 bits are what W3C's trace context calls random, and OpenTelemetry's consistent sampling decides by.
# Not the 64 of TraceIdRatioBased: our traces are named after UUIDs, whose variant sits in the topmost two of them, so
# that a ratio below a half would never record one.
_RANDOM_BITS: Final = 56
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_KINDS: Final = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}


class _Ids(IdGenerator):
    """Random ids; but a trace that is named already keeps its name."""

    def __init__(self) -> None:
        self.next_trace_id: int | None = None

    def generate_span_id(self) -> int:
        return random.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        named, self.next_trace_id = self.next_trace_id, None
        return named or random.getrandbits(128) or 1


class _Counting(SpanExporter):
    """Counts what became of spans, and logs when the collector stops taking them and when it takes them again."""

    def __init__(self, inner: SpanExporter, service: str, endpoint: str) -> None:
        self._inner = inner
        self._service = service
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._waiting = 0
        self._is_full = False
        self._is_away = False
        for outcome in ("exported", "not_taken", "queue_full"):
            metrics.SPANS.labels(service, outcome)

    def admit(self) -> bool:
        """Whether one more may wait."""
        with self._lock:
            admitted = self._waiting < _QUEUE_MOST
            self._waiting += admitted
            told, self._is_full = self._is_full, not admitted
        if not admitted:
            metrics.SPANS.labels(self._service, "queue_full").inc()
            if not told:
                logger.warning("%d spans wait for %s: further ones are dropped", _QUEUE_MOST, self._endpoint)
        return admitted

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._inner.export(spans)
        except Exception:  # noqa: BLE001 - whatever it was, these spans are lost and the next may not be
            result = SpanExportResult.FAILURE
        with self._lock:
            self._waiting -= len(spans)
        taken = result is SpanExportResult.SUCCESS
        metrics.SPANS.labels(self._service, "exported" if taken else "not_taken").inc(len(spans))
        if self._is_away is taken:
            self._is_away = not taken
            if taken:
                logger.info("%s takes spans again", self._endpoint)
            else:
                logger.warning(
                    "%s does not take spans: they are dropped, everything else goes on; see TRACING_OTLP_ENDPOINT and "
                    "switchyard_spans_total",
                    self._endpoint,
                )
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()


class _Bounded(SpanProcessor):
    """In front of the SDK's queue, which would drop its oldest without telling how many."""

    def __init__(self, exporter: _Counting) -> None:
        self._exporter = exporter
        self._batches = BatchSpanProcessor(
            exporter, max_queue_size=2 * _QUEUE_MOST, schedule_delay_millis=_EVERY_MS, max_export_batch_size=_AT_ONCE
        )

    def on_end(self, span: ReadableSpan) -> None:
        if self._exporter.admit():
            self._batches.on_end(span)

    def shutdown(self) -> None:
        self._batches.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._batches.force_flush(timeout_millis)


class Recorder:
    """Begins spans by `traceparent`. One per process."""

    def __init__(self, service: str, settings: CommonSettings) -> None:
        assert settings.tracing_otlp_endpoint is not None, "asked for a recorder without a collector"
        # The exporter's own words, a line for each try, are said in `_Counting`.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        endpoint = traces_endpoint(settings.tracing_otlp_endpoint)
        headers = settings.tracing_otlp_headers
        exporter = OTLPSpanExporter(
            endpoint=endpoint,
            certificate_file=str(settings.tracing_otlp_cafile) if settings.tracing_otlp_cafile else None,
            headers=headers_of(headers.get_secret_value()) if headers else None,
        )
        self._threshold = round((1 - settings.tracing_sample_ratio) * (1 << _RANDOM_BITS))
        self._ids = _Ids()
        # Ours alone, never the process's global one: libraries that look for that would add spans of their own, with
        # what requests and errors say in them.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create(
                {
                    "service.name": service,
                    "service.namespace": "switchyard",
                    "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
                }
            ),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(_Bounded(_Counting(exporter, service, _without_query(endpoint))))
        self._tracer = self._provider.get_tracer("switchyard")

    def records(self, parent: str) -> bool:
        """Whether the trace of `parent` is recorded."""
        if not parent:
            self._ids.next_trace_id = random.getrandbits(128) or 1
            return self._by_ratio(self._ids.next_trace_id)
        if names_no_span(parent):
            return self._by_ratio(int(trace_id_of(parent), 16))
        return is_sampled(parent)

    def begin(
        self,
        name: str,
        parent: str,
        kind: str,
        attributes: Mapping[str, str | int | float | bool],
        links: Sequence[str],
        at_ns: int | None,
    ) -> Span:
        """Call it for what `records` says yes to, and right after it."""
        context = Context()  # never the one of the process: see `Recorder.__init__`
        if parent and names_no_span(parent):
            self._ids.next_trace_id = int(trace_id_of(parent), 16)
        elif parent:
            context = set_span_in_context(NonRecordingSpan(_span_context(parent)), context)
        return self._tracer.start_span(
            name,
            context,
            _KINDS[kind],
            attributes,
            [Link(_span_context(link)) for link in links],
            at_ns,
            record_exception=False,
            set_status_on_exception=False,
        )

    @staticmethod
    def traceparent_of(span: Span) -> str:
        context = span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    @staticmethod
    def fail(span: Span, what: str) -> None:
        span.set_attribute("error.type", what)
        span.set_status(Status(StatusCode.ERROR))

    def close(self) -> None:
        self._provider.shutdown()

    def _by_ratio(self, trace_id: int) -> bool:
        return trace_id % (1 << _RANDOM_BITS) >= self._threshold


def traces_endpoint(url: str) -> str:
    """Where spans are posted to: collectors are known by their address alone, or with the path of traces."""
    return url if urlsplit(url).path.strip("/") else url.rstrip("/") + _TRACES_PATH


def headers_of(setting: str) -> dict[str, str]:
    """`name=value`, several separated by commas. Raises ValueError, without the value."""
    headers = {}
    for item in filter(None, (item.strip() for item in setting.split(","))):
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise ValueError("TRACING_OTLP_HEADERS: write name=value, several separated by commas")
        headers[name.strip()] = value.strip()
    return headers


def _without_query(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _span_context(traceparent: str) -> SpanContext:
    return SpanContext(
        int(trace_id_of(traceparent), 16), int(span_id_of(traceparent), 16), is_remote=True, trace_flags=_SAMPLED
    )
