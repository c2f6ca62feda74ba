"""Traces: which are recorded, what they are named after, and that nobody waits for them."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Response
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from deploy.processes import free_port
from shared import metrics, tracing, tracing_export
from shared.settings import CommonSettings
from shared.trace_context import about, current, derived, is_sampled, is_valid, names_no_span, trace_id_of
from shared.tracing_export import headers_of, traces_endpoint
from shared.tracing_http import TraceRequests
from tests.support.collector import Collector, collecting

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


@pytest.fixture
async def switched_on() -> AsyncIterator[Callable[..., None]]:
    """Switches tracing on, once; it is off again after the test."""
    names = "shared.tracing_export", "opentelemetry"
    levels = {name: logging.getLogger(name).level for name in names}

    def switch(url: str, **more: Any) -> None:
        tracing.configure("tested", CommonSettings(tracing_otlp_endpoint=url, **more))

    yield switch
    await tracing.close()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_without_a_collector_no_sdk_is_imported_and_contexts_are_passed_on() -> None:
    program = """
import sys
from shared import tracing
from shared.settings import CommonSettings
import services.intake.app, services.classifier.app, services.sla_timer.app, services.notifier.app, services.desk.app
tracing.configure("intake", CommonSettings())
with tracing.span("x", "given", links=["y"]) as span:
    span.set({"a": 1})
    assert span.traceparent == "given" and not tracing.is_on()
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "google."))])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "00",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
        f"{GIVEN}01".upper(),
        f"{GIVEN}01-more",
        f"{GIVEN}0",
    ],
)
def test_a_context_that_is_none_is_not_taken(wrong: str) -> None:
    assert not is_valid(wrong)
    assert is_valid(f"{GIVEN}01")


def test_a_derived_context_is_known_as_one() -> None:
    identity = uuid.uuid4()
    context = derived(identity)
    assert is_valid(context)
    assert names_no_span(context)
    assert not names_no_span(f"{GIVEN}01")
    assert trace_id_of(context) == identity.hex


async def test_the_first_span_of_a_derived_context_has_no_parent_and_the_next_has(
    switched_on: Callable[..., None], collector: Collector
) -> None:
    switched_on(collector.url, tracing_otlp_headers="authorization=Bearer x, x-tenant=a")
    identity = uuid.uuid4()
    with tracing.span("first", derived(identity), links=[f"{GIVEN}01", "nonsense", derived(uuid.uuid4())]) as first:
        assert is_sampled(current())
        tracing.note(current(), {"told": "later", "unknown": None})
        with pytest.raises(KeyError), tracing.span("second", current(), "client"):
            raise KeyError("what a customer wrote")
    assert current() == ""
    await tracing.close()
    by_name = {span.name: span for span in collector.spans}
    assert (by_name["first"].trace_id, by_name["first"].parent_id) == (identity.hex, "")
    assert by_name["first"].attributes == {"told": "later"}
    assert by_name["first"].links == ((GIVEN[3:35], GIVEN[36:52]),)
    assert by_name["second"].parent_id == by_name["first"].span_id == first.traceparent[36:52]
    assert (by_name["second"].failed, by_name["second"].kind) == (True, "client")
    assert by_name["second"].attributes == {"error.type": "KeyError"}
    assert b"what a customer wrote" not in collector.raw
    assert (collector.headers["authorization"], collector.headers["x-tenant"]) == ("Bearer x", "a")


async def test_every_service_decides_alike_by_the_ratio_and_who_sent_it_decides_first(
    switched_on: Callable[..., None], collector: Collector
) -> None:
    """Event ids are UUIDs, whose variant bits sit where TraceIdRatioBased looks: it would never record one of these."""
    contexts = [derived(uuid.uuid5(uuid.NAMESPACE_URL, str(number))) for number in range(2000)]

    def recorded() -> list[str]:
        begun = [(context, tracing.begin("x", context)) for context in contexts]
        for _, span in begun:
            span.end()
        return [context for context, span in begun if is_sampled(span.traceparent)]

    switched_on(collector.url, tracing_sample_ratio=0.25)
    once = recorded()
    assert 400 <= len(once) <= 600  # 500 expected, sigma 19.4
    assert recorded() == once
    unrecorded = next(context for context in contexts if context not in once)
    assert tracing.begin("x", unrecorded).traceparent == unrecorded  # the next service decides as this one did
    assert tracing.begin("x", f"{GIVEN}00").traceparent == f"{GIVEN}00"
    taken = tracing.begin("x", f"{GIVEN}01")
    assert (trace_id_of(taken.traceparent), is_sampled(taken.traceparent)) == (GIVEN[3:35], True)
    taken.end()
    await tracing.close()

    switched_on(collector.url, tracing_sample_ratio=0.5)
    assert set(once) < set(recorded())  # who records more records what others record, too


async def test_a_collector_that_is_away_holds_nobody_up_and_is_logged_once(
    switched_on: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    def counted(outcome: str) -> float:
        return float(metrics.SPANS.labels("tested", outcome)._value.get())

    caplog.set_level(logging.DEBUG)
    before = counted("queue_full")
    switched_on(f"http://127.0.0.1:{free_port()}")
    slowest = 0.0
    for _ in range(12_000):
        begun = time.perf_counter()
        tracing.begin("x", derived(uuid.uuid4())).end()
        slowest = max(slowest, time.perf_counter() - begun)
    assert slowest < 5  # a hand-over takes 10 s to give up
    assert counted("queue_full") - before >= 12_000 - 8192 - 512 * 2
    begun = time.monotonic()
    await tracing.close()
    assert time.monotonic() - begun < 30  # a stop waits 3 s
    assert len([record for record in caplog.records if "wait for" in record.getMessage()]) == 1
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


class Taking(SpanExporter):
    """An exporter that takes spans, or does not."""

    def __init__(self) -> None:
        self.result = SpanExportResult.SUCCESS

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self.result


def test_what_was_handed_over_makes_room_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing_export, "_QUEUE_MOST", 3)
    counting = tracing_export._Counting(Taking(), "tested", "http://collector")
    assert [counting.admit() for _ in range(4)] == [True, True, True, False]
    counting.export([ReadableSpan("x")] * 2)
    assert [counting.admit() for _ in range(3)] == [True, True, False]


def test_a_collector_that_goes_and_comes_back_is_told_of_once_each_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    taking = Taking()
    counting = tracing_export._Counting(taking, "tested", "http://collector")
    for result in (SpanExportResult.SUCCESS, *[SpanExportResult.FAILURE] * 3, *[SpanExportResult.SUCCESS] * 2):
        taking.result = result
        counting.export([ReadableSpan("x")])
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "does not take spans" in caplog.records[0].getMessage()
    assert "takes spans again" in caplog.records[1].getMessage()


async def test_a_span_that_has_ended_is_told_nothing_more(
    switched_on: Callable[..., None], collector: Collector
) -> None:
    switched_on(collector.url)
    for _ in range(10):
        span = tracing.begin("x", derived(uuid.uuid4()))
        span.end()
        tracing.note(span.traceparent, {"late": True})
    assert tracing._open == {}, "ended spans are kept"
    await tracing.close()
    assert [span.attributes for span in collector.spans] == [{}] * 10


async def test_a_request_is_a_span_of_its_route_and_goes_on_with_the_trace_it_came_with(
    switched_on: Callable[..., None], collector: Collector
) -> None:
    switched_on(collector.url)
    app = FastAPI(openapi_url=None)
    app.add_middleware(TraceRequests)

    @app.get("/livez")
    @app.get("/tickets/{ticket_id}")
    def answer(ticket_id: str = "", status: int = 200) -> Response:
        return Response(status_code=status)

    ticket = str(uuid.uuid4())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://desk") as client:
        for path, traceparent in (
            ("/livez", f"{GIVEN}01"),
            (f"/tickets/{ticket}", f"{GIVEN}01"),
            (f"/tickets/{ticket}?status=404", "nonsense"),
            (f"/tickets/{ticket}?status=503", ""),
        ):
            await client.get(path, headers={"traceparent": traceparent})
    await tracing.close()
    found, missing, failed = collector.spans
    assert {span.name for span in collector.spans} == {"GET /tickets/{ticket_id}"}
    assert (found.trace_id, found.parent_id) == (GIVEN[3:35], GIVEN[36:52])
    assert [span.parent_id for span in (missing, failed)] == ["", ""]
    assert [span.failed for span in collector.spans] == [False, False, True]
    assert [span.attributes["http.response.status_code"] for span in collector.spans] == [200, 404, 503]
    assert {span.attributes["switchyard.ticket.id"] for span in collector.spans} == {ticket}


async def test_the_address_of_the_collector_may_be_short_and_its_headers_are_checked() -> None:
    assert (
        traces_endpoint("http://tempo:4318") == traces_endpoint("http://tempo:4318/") == "http://tempo:4318/v1/traces"
    )
    assert traces_endpoint("https://a.example/otlp/v1/traces") == "https://a.example/otlp/v1/traces"
    assert headers_of(" a=b=c , d= e,") == {"a": "b=c", "d": "e"}
    with pytest.raises(ValueError, match="TRACING_OTLP_HEADERS") as refused:
        headers_of("swordfish")
    assert "swordfish" not in str(refused.value)


def test_what_work_is_about_ends_with_it() -> None:
    ticket = uuid.uuid4()
    with about(f"{GIVEN}01", ticket):
        with about():
            assert current() == ""
        assert current() == f"{GIVEN}01"
    assert current() == ""
