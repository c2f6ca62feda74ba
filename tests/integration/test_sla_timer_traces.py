"""What time does to a clock is told in the trace of the message that started it, days later, on any replica."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from shared import tracing
from shared.events import SlaEvent, SlaKind
from shared.settings import CommonSettings
from shared.taxonomy import Priority
from tests.support.collector import Collector, collecting
from tests.support.sla_timer import Replica, message, received, replicas, routed, settings_for
from tests.support.waiting import eventually


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    """Tracing is off before, and after the test."""
    async with collecting() as collector:
        yield collector
        await tracing.close()


async def breach(replica: Replica, ticket: uuid.UUID) -> str:
    """The context with which the ticket's first breach was put into the outbox."""

    async def fired() -> str | None:
        await replica.firing.on_due()
        async with replica.database.transaction() as connection:
            rows = await connection.execute(
                text("SELECT body, traceparent FROM sla_timer.outbox WHERE type = :type"), {"type": SlaEvent.TYPE}
            )
        for row in rows:
            event = SlaEvent.model_validate_json(row.body)
            if event.ticket_id == ticket and event.kind is SlaKind.BREACHED:
                context: str = row.traceparent
                return context
        return None

    found = await eventually(fired, 60)
    assert found is not None
    return found


async def test_an_alarm_is_in_the_trace_of_the_message_that_started_its_clock(
    tmp_path: Path, database: str, collector: Collector
) -> None:
    async with replicas(settings_for(tmp_path, database), 2) as (first, second):
        before = message(uuid.uuid4(), datetime.now(UTC))
        await first.handlers.on_tickets(received(before, routed(before, Priority.P1)))
        tracing.configure("sla_timer", CommonSettings(tracing_otlp_endpoint=collector.url))
        opening = message(uuid.uuid4(), datetime.now(UTC))
        trace_id, span_id = uuid.uuid4().hex, uuid.uuid4().hex[:16]
        given = [
            replace(item, traceparent=f"00-{trace_id}-{span_id}-01")
            for item in received(opening, routed(opening, Priority.P1))
        ]
        await first.handlers.on_tickets(given)
        told = await breach(second, opening.ticket_id)
        alone = await breach(second, before.ticket_id)
    await tracing.close()
    breached = {span.span_id: span for span in collector.spans if span.name == "fire breached"}
    fired = breached[told[36:52]]
    assert (fired.trace_id, fired.parent_id) == (trace_id, span_id)
    assert fired.attributes["switchyard.ticket.id"] == str(opening.ticket_id)
    # Its clocks were started before anything was traced: a trace of its own.
    assert breached[alone[36:52]].parent_id == ""
    assert breached[alone[36:52]].trace_id != trace_id
