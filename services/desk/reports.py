"""`GET /v1/report` of the desk: asks the sla_timer, in the name of a lead or a viewer who sees no more than is theirs.

The desk's own token for the sla_timer never leaves the server. What is counted how: docs/reports.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import httpx
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from services.desk.agents import Agent, Role
from services.desk.settings import Settings
from shared.events.base import BrandCode
from shared.http import Problem, forbidden, unavailable
from shared.taxonomy import Queue
from shared.tls import client_context

# Longer than the sla_timer gives its own statements, so that its answer comes before ours.
_ANSWER_SECONDS: Final = 50.0
_CONNECT_SECONDS: Final = 3.0

_Text = Annotated[str, Field(max_length=64)]


class ReportQuery(BaseModel):
    """The sla_timer's parameters; it checks what they say. Brand and queue are read here: they say who may ask."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: Annotated[_Text, Field(alias="from", description="date, or ISO time; included")]
    until: Annotated[_Text, Field(alias="to", description="date, or ISO time; not included")]
    by: Annotated[_Text, Field(description="hour, queue, channel, priority, brand, agent_group or peak")] = "hour"
    target: Annotated[_Text | None, Field(description="without it, all")] = None
    brand: BrandCode | None = None
    queue: Queue | None = None
    channel: _Text | None = None
    priority: _Text | None = None
    zone: Annotated[_Text | None, Field(description="IANA zone; without it, that of the calendar of the brand")] = None


@dataclass(frozen=True, slots=True)
class Reports:
    """The way to the sla_timer. `transport`: of a test."""

    settings: Settings
    transport: httpx.AsyncBaseTransport | None = None

    async def answer(self, agent: Agent, query: ReportQuery) -> Response:
        """The sla_timer's report as it is. Raises Problem."""
        _check(agent, query)
        url, token = self.settings.desk_sla_timer_url, self.settings.desk_sla_timer_token
        if not url or token is None or not token.get_secret_value():
            missing = "DESK_SLA_TIMER_TOKEN" if url else "DESK_SLA_TIMER_URL"
            raise unavailable(f"this installation has not set {missing}, so the desk cannot ask for reports")
        timeout = httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS)
        try:
            async with httpx.AsyncClient(
                transport=self.transport, verify=client_context(self.settings), timeout=timeout, trust_env=False
            ) as client:
                answer = await client.get(
                    f"{url.rstrip('/')}/v1/report",
                    params=query.model_dump(mode="json", by_alias=True, exclude_none=True),
                    headers={"Authorization": f"Bearer {token.get_secret_value()}"},
                )
        except httpx.TimeoutException:
            raise Problem(504, "Gateway Timeout", "the sla_timer did not answer in time; try again") from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise _bad_gateway("the sla_timer cannot be reached; the operator sees why in its log") from None
        if answer.status_code != httpx.codes.OK:
            raise _problem(answer)
        return Response(answer.content, media_type="application/json")


def _check(agent: Agent, query: ReportQuery) -> None:
    """Raises a 403 Problem for an agent, and for who asks beyond their brands and queues."""
    if agent.role not in (Role.LEAD, Role.VIEWER):
        raise forbidden(f"{agent.id} is an {agent.role.value}; reports are for leads and viewers")
    if not agent.may_see_brand(query.brand):
        raise _name_one("brand", query.brand is None, agent.id, sorted(agent.brands))
    if not agent.may_see_queue(query.queue):
        raise _name_one("queue", query.queue is None, agent.id, sorted(agent.queues))


def _name_one(field: str, missing: bool, agent: str, own: Sequence[str]) -> Problem:
    seen = f"{agent} sees only some: name one with `{field}`" if missing else f"{agent} does not see this {field}"
    problem = forbidden(f"{seen} ({', '.join(own)})")
    problem.errors = [{"field": f"query.{field}", "detail": "name one that is yours"}]
    return problem


def _problem(answer: httpx.Response) -> Problem:
    """What the person who asked can do about the sla_timer's answer."""
    told = _told(answer)
    match answer.status_code:
        case 422:
            return Problem(422, "Invalid request", told.get("detail", ""), errors=told.get("errors", ()))
        case 503:
            return unavailable(f"the sla_timer says: {told.get('detail', 'not now')}")
        case 401 | 403:
            return _bad_gateway("the sla_timer refuses the desk: DESK_SLA_TIMER_TOKEN must be its SLA_TIMER_API_TOKEN")
        case status:
            return _bad_gateway(f"the sla_timer answered {status}; the operator sees why in its log")


def _told(answer: httpx.Response) -> dict[str, Any]:
    try:
        told = answer.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _bad_gateway(detail: str) -> Problem:
    return Problem(502, "Bad Gateway", detail)
