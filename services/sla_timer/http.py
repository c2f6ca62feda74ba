"""What leads and the demo look at: open clocks and when they are due, arrivals and first answers by hour, peaks,
reports.
"""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import PlainTextResponse

from services.sla_timer import storage
from services.sla_timer.domain.clocks import Clock
from services.sla_timer.domain.reports import Report, ReportQuery, WrongQuestion
from services.sla_timer.explaining import NotOneTicket, explain
from services.sla_timer.forecasts import (
    HELD_OUT_DAYS,
    MOST_HELD_OUT_DAYS,
    Asked,
    CannotForecast,
    DayForecast,
    forecast_of,
)
from services.sla_timer.in_force import PoliciesInForce
from services.sla_timer.reports import TooLarge, question_of, read
from services.sla_timer.settings import Settings
from shared.database import Database
from shared.events.base import BrandCode
from shared.http import Problem, bearer_token, forbidden, same_secret, unauthorized, unavailable
from shared.taxonomy import Channel, Queue

_NEXT_DUE: Final = 20
_REPORTS_AT_ONCE: Final = 2  # each holds a connection, and the deadlines need the others
_REPORT_STATEMENT_MOST: Final = timedelta(seconds=20)


def build_router(database: Database, settings: Settings, in_force: PoliciesInForce) -> APIRouter:
    async def authorise(request: Request) -> None:
        if settings.sla_timer_api_token is None:
            raise forbidden("this installation has not set SLA_TIMER_API_TOKEN")
        if not same_secret(bearer_token(request), settings.sla_timer_api_token.get_secret_value()):
            raise unauthorized()

    router = APIRouter(prefix="/v1", dependencies=[Depends(authorise)])

    @router.get("/clocks")
    async def clocks(ticket_id: uuid.UUID | None = None) -> dict[str, Any]:
        """The clocks of a ticket; without one, how many are open and which are due next."""
        async with database.transaction() as connection:
            if ticket_id is not None:
                found = (await storage.clocks_of(connection, [ticket_id])).get(ticket_id, {})
                ordered = sorted(found.values(), key=lambda clock: (clock.started_at, clock.target))
                return {"ticket_id": ticket_id, "clocks": [_shown(ticket_id, clock) for clock in ordered]}
            return {
                "open": await storage.count_open(connection),
                "next_due": [_shown(*item) for item in await storage.next_due(connection, _NEXT_DUE)],
            }

    @router.get("/clocks/{ticket_id}/explanation", response_class=PlainTextResponse)
    async def explanation(ticket_id: uuid.UUID) -> str:
        """How the due times of a ticket's promises came about, as a person would do the sum."""
        async with database.transaction() as connection:
            try:
                return await explain(connection, str(ticket_id), in_force.policies, datetime.now(UTC))
            except NotOneTicket as error:
                raise Problem(404, "Not Found", str(error)) from None

    @router.get("/peaks")
    async def peaks(hours: Annotated[int, Query(ge=1, le=24 * 31)] = 24) -> dict[str, Any]:
        """Peaks going on; arrivals and first answers (business seconds, exact percentiles) by hour, UTC."""
        since = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours - 1)
        async with database.transaction() as connection:
            return {
                "since": since,
                "active": [
                    {
                        "brand": place.brand,
                        "queue": place.queue,
                        "channel": place.channel,
                        "began_at": peak.began_at,
                        "cause": peak.cause,
                    }
                    for place, peak in sorted(
                        (await storage.active_peaks(connection)).items(), key=lambda item: item[1].began_at
                    )
                ],
                "arrivals": await storage.arrivals_by_hour(connection, since),
                "first_response": await storage.first_responses_by_hour(connection, since),
            }

    one_at_a_time = asyncio.Lock()  # a second of arithmetic each, beside the deadlines

    @router.get("/forecast")
    async def forecast(
        brand: BrandCode | None = None,
        queue: Queue | None = None,
        channel: Channel | None = None,
        day: date | None = None,
        held_out: Annotated[int, Query(ge=0, le=MOST_HELD_OUT_DAYS)] = HELD_OUT_DAYS,
    ) -> DayForecast:
        """Arrivals and agents of a day (none: tomorrow) by half-hour, and how far off days held out were forecast."""
        asked = Asked(brand, queue, channel, day, held_out)
        async with one_at_a_time:
            try:
                return await forecast_of(database, in_force.policies, asked, datetime.now(UTC))
            except CannotForecast as error:
                raise Problem(409, "Too little is known", str(error)) from None

    reporting = asyncio.Semaphore(_REPORTS_AT_ONCE)

    @router.get("/report", response_model=Report)
    async def report(query: Annotated[ReportQuery, Query()]) -> Response:
        """Response times and the backlog, see docs/reports.md. 503 when it takes too long or others are being made."""
        if reporting.locked():
            raise unavailable("other reports are being made; try again in a moment")
        async with reporting:
            try:
                found = await read(
                    database,
                    question_of(query, in_force.policies),
                    now=datetime.now(UTC),
                    statement_most=_REPORT_STATEMENT_MOST,
                )
            except WrongQuestion as error:
                wrong = {"field": f"query.{error.field}", "detail": error.detail}
                raise Problem(422, "Invalid request", f"wrong: {wrong['field']}", errors=[wrong]) from None
            except TooLarge as error:
                raise Problem(503, "Report too large", str(error)) from None
        return Response(found.model_dump_json(), media_type="application/json")

    return router


def _shown(ticket_id: uuid.UUID, clock: Clock) -> dict[str, Any]:
    return {
        "clock_id": clock.id,
        "ticket_id": ticket_id,
        "target": clock.target,
        "generation": clock.generation,
        "state": clock.state,
        "queue": clock.queue,
        "category": clock.category,
        "priority": clock.priority,
        "agent_group": clock.agent_group,
        "policy": clock.terms.policy,
        "policy_version": clock.terms.policy_version,
        "calendar": clock.terms.calendar,
        "calendar_version": clock.terms.calendar_version,
        "target_seconds": clock.terms.target_seconds,
        "started_at": clock.started_at,
        "due_at": clock.due_at,
        "ended_at": clock.ended_at,
        "breached": clock.breached_at is not None,
        "business_seconds": clock.used_seconds,
        "course": [{"kind": step.kind, "at": step.at, "due_at": step.due_at} for step in clock.course],
    }
