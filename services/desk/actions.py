"""What agents ask for: claim the next ticket, act on one. State, history and the event leave in one transaction."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from services.desk import storage
from services.desk.agents import Agent
from services.desk.domain import (
    ACTIONS,
    Action,
    Refusal,
    RefusalCode,
    Rules,
    Ticket,
    after_activity,
    after_sign_of_life,
    after_took_over,
    claim_expired,
    merge_refusal,
    refusal,
    tick_refusal,
)
from services.desk.domain_view import View
from shared import metrics, topics, tracing
from shared.cloudevents import Outgoing, trace_of
from shared.database import Database
from shared.deadlines import Deadline
from shared.events import ActivityKind, ReleaseReason, TicketActivity, derive_id
from shared.labels import NONE, brand_label
from shared.redaction import redact
from shared.taxonomy import Category, Priority, Queue
from shared.trace_context import current

DESK: Final = "switchyard"
"""Agent of what the desk does by itself."""
TAKE_BACK: Final = "take_back"
_LOOK_AGAIN: Final = timedelta(seconds=1)


class Refused(Exception):
    """The action is not possible now; `refusal` says why and what to do."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


class NotFound(Exception):
    """There is no such ticket, or none that this agent may see: the two are not told apart."""


class NoSuchPoint(Exception):
    """The ticket has no such point, nor has one that was merged into it."""


class KeyReused(Exception):
    """The Idempotency-Key was sent before with another request."""


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks, and the key that makes a repetition of the request do nothing. `at`: now (UTC)."""

    agent: Agent
    at: datetime
    key: str | None = None

    def activity_id(self) -> str:
        if self.key is None:
            return f"desk:{uuid.uuid4()}"
        return f"desk:{derive_id('desk.request', self.agent.id, self.key)}"


@dataclass(frozen=True, slots=True)
class Change:
    """What goes with an action: a reply's text or a note; where a ticket is moved to; what it is merged into."""

    text: str | None = None
    queue: Queue | None = None
    category: Category | None = None
    priority: Priority | None = None
    merged_into: uuid.UUID | None = None


def may_see(agent: Agent, view: View) -> bool:
    """His queues and brands, and whatever he holds himself, wherever it was moved since."""
    if view.ticket.claimed_by == agent.id:
        return True
    return agent.may_see_queue(view.ticket.queue) and agent.may_see_brand(view.brand)


class Desk:
    """The actions of one installation."""

    def __init__(self, database: Database, rules: Rules) -> None:
        self._database = database
        self._rules = rules

    async def claim(self, queue: Queue, request: Request) -> uuid.UUID | None:
        """Claim the next ticket of `queue` for the agent. None when nothing waits there for him.

        A repetition returns the ticket that the first request claimed, whatever became of it. Raises KeyReused.
        """
        agent = request.agent
        async with self._database.transaction() as connection:
            known = await self._known(connection, request, {"claim": queue})
            if known is not None:
                return known
            view = await storage.lock_next(connection, queue, None if agent.brands == "all" else agent.brands)
            if view is None:
                if request.key is not None:
                    await storage.forget_request(connection, agent.id, request.key)
                return None
            activity = TicketActivity(
                ticket_id=view.ticket.ticket_id,
                activity_id=request.activity_id(),
                kind=ActivityKind.CLAIMED,
                agent=agent.id,
                at=_not_before(request.at, view.ticket),
                queue=queue,
                agent_group=agent.group,
                brand=view.brand,
            )
            await self._do(connection, [(view, activity)])
            if request.key is not None:
                await storage.end_request(connection, agent.id, request.key, activity.ticket_id)
        _count_claim(view, activity.at)
        return activity.ticket_id

    async def act(self, ticket_id: uuid.UUID, action: Action, change: Change, request: Request) -> None:
        """Do `action`. Secrets in `change.text` are cut. A repetition does nothing. A merge needs `change.merged_into`.

        Raises NotFound, Refused, KeyReused.
        """
        agent = request.agent
        text = None if change.text is None else redact(change.text).text
        async with self._database.transaction() as connection:
            asked = {
                "action": action,
                "ticket": str(ticket_id),
                "text": text,
                "move": [change.queue, change.category, change.priority],
                **({"into": str(change.merged_into)} if change.merged_into else {}),
            }
            if await self._known(connection, request, asked) is not None:
                return
            views = await storage.lock(connection, [ticket_id, *([change.merged_into] if change.merged_into else [])])
            view = views.get(ticket_id)
            if view is None or not may_see(agent, view):
                raise NotFound
            refused = refusal(view.ticket, action, agent.id, is_lead=agent.is_lead)
            if refused is not None:
                raise Refused(refused)
            into = None if change.merged_into is None else _mergeable(agent, view, change.merged_into, views)
            activity = TicketActivity(
                ticket_id=ticket_id,
                activity_id=request.activity_id(),
                kind=ACTIONS[action].kind,
                agent=agent.id,
                at=_not_before(request.at, view.ticket),
                text=text,
                queue=change.queue,
                category=change.category,
                priority=change.priority,
                release_reason=ReleaseReason.AGENT if action is Action.RELEASE else None,
                merged_into=change.merged_into,
                agent_group=agent.group,
                brand=view.brand,
            )
            await self._do(connection, [(view, activity)])
            left_open = 0
            if action is Action.RESOLVE:
                left_open = (await storage.open_points(connection, [ticket_id]))[ticket_id]
            if into is not None:
                took_over = after_took_over(into.ticket, activity.at, self._rules, here=True)
                await storage.save(connection, [replace(into, ticket=took_over)])
            if request.key is not None:
                await storage.end_request(connection, agent.id, request.key, ticket_id)
        metrics.AGENT_ACTIONS.labels(activity.kind).inc()
        if left_open:
            metrics.POINTS_LEFT_OPEN.labels(view.ticket.queue or NONE).inc(left_open)

    async def tick(self, ticket_id: uuid.UUID, point_id: uuid.UUID, request: Request, *, done: bool) -> None:
        """Tick a point off, or open it again. One that is so already keeps who ticked it off, and when.

        No event tells of it: what is ticked is the desk's own affair. Raises NotFound, NoSuchPoint, Refused.
        """
        agent = request.agent
        async with self._database.transaction() as connection:
            raised_in = await storage.ticket_of_point(connection, point_id)
            views = await storage.lock(connection, [ticket_id, *([raised_in] if raised_in else [])])
            view = views.get(ticket_id)
            if view is None or not may_see(agent, view):
                raise NotFound
            if raised_in is None or not await storage.goes_on_for(connection, ticket_id, raised_in):
                raise NoSuchPoint
            refused = tick_refusal(view.ticket, agent.id, is_lead=agent.is_lead)
            if refused is not None:
                raise Refused(refused)
            at = _not_before(request.at, view.ticket)
            if not await storage.tick(connection, point_id, (agent.id, at) if done else None):
                return
            raised = views[raised_in]
            views[raised_in] = replace(raised, open_points=raised.open_points + (-1 if done else 1))
            ticket = after_sign_of_life(view.ticket, agent.id, at, self._rules)
            views[ticket_id] = replace(views[ticket_id], ticket=ticket)
            await storage.save(connection, views.values())
            await storage.DEADLINES.schedule(connection, take_back_deadlines([view], [views[ticket_id]]))

    async def take_back(self, connection: AsyncConnection, due: Sequence[Deadline], now: datetime) -> None:
        """Return to their queues the tickets whose agents have been silent until now (`shared.deadlines.Fire`).

        A deadline that its agent has outlived finds nothing to do: it was left in place, because who acts on a ticket
        would wait here for its row while we wait there for the ticket's. For the same reason a ticket that is being
        acted on right now is not waited for, but looked at again in a second.
        """
        views = await storage.lock_free(connection, (item.subject for item in due))
        silent = [view for view in views.values() if claim_expired(view.ticket, now)]
        await self._do(connection, [(view, _taken_back(view, now)) for view in silent])
        busy = [item for item in due if item.subject not in views]
        await storage.DEADLINES.schedule(
            connection, [replace(item, due_at=now + _LOOK_AGAIN, attempt=0) for item in busy]
        )
        for view in silent:
            metrics.TAKE_BACKS.labels(brand_label(view.brand), view.ticket.queue or NONE).inc()

    async def _known(self, connection: AsyncConnection, request: Request, asked: Mapping[str, Any]) -> uuid.UUID | None:
        """The ticket of the request that this one repeats; None for a new one."""
        if request.key is None:
            return None
        fingerprint = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        known = await storage.begin_request(connection, request.agent.id, request.key, fingerprint, request.at)
        if known is None:
            return None
        if known.fingerprint != fingerprint:
            raise KeyReused
        return known.ticket_id

    async def _do(self, connection: AsyncConnection, done: Sequence[tuple[View, TicketActivity]]) -> None:
        """Write state, history, deadline and event of activities on tickets that are locked."""
        if not done:
            return
        changed = [
            replace(view, ticket=after_activity(view.ticket, activity, activity.at, self._rules, here=True))
            for view, activity in done
        ]
        activities = [activity for _, activity in done]
        await storage.save(connection, changed)
        await storage.record(connection, {activity.event_id: activity for activity in activities})
        await storage.DEADLINES.schedule(
            connection, take_back_deadlines((view for view, _ in done), (view for view in changed))
        )
        await storage.OUTBOX.add(
            connection,
            [Outgoing(topics.TICKETS_ACTIVITY.name, activity, _traced(view, activity)) for view, activity in done],
        )


def _traced(view: View, activity: TicketActivity) -> str:
    """What is done with a ticket belongs to the trace of its message, and is linked to the request that asked for it.
    Returns its context.
    """
    trace = view.traceparent or trace_of(activity)
    if not tracing.is_on():
        return trace
    span = tracing.begin(
        f"agent {activity.kind}",
        trace,
        attributes={
            tracing.TICKET: str(activity.ticket_id),
            tracing.BRAND: activity.brand,
            "switchyard.queue": view.ticket.queue,
        },
        links=[current()],
    )
    span.end()
    return span.traceparent


def take_back_deadlines(before: Iterable[View], after: Iterable[View]) -> list[Deadline]:
    """A deadline for each claim that now ends at another time than before (same tickets, same order).

    Its id holds the time, so that a row is only ever written once and none is waited for.
    """
    return [
        Deadline(
            id=derive_id("desk.take_back", new.ticket.ticket_id, new.ticket.claim_expires_at.isoformat()),
            kind=TAKE_BACK,
            subject=new.ticket.ticket_id,
            due_at=new.ticket.claim_expires_at,
        )
        for old, new in zip(before, after, strict=True)
        if new.ticket.claim_expires_at is not None and new.ticket.claim_expires_at != old.ticket.claim_expires_at
    ]


def _count_claim(view: View, at: datetime) -> None:
    ticket = view.ticket
    queue, priority = ticket.queue or NONE, ticket.priority or NONE
    metrics.AGENT_ACTIONS.labels(ActivityKind.CLAIMED).inc()
    metrics.CLAIMS.labels(brand_label(view.brand), queue, priority).inc()
    if ticket.enqueued_at is not None:
        waited_seconds = max(0.0, (at - ticket.enqueued_at).total_seconds())
        metrics.CLAIM_WAIT_SECONDS.labels(queue, priority).observe(waited_seconds)


def _mergeable(agent: Agent, view: View, into_id: uuid.UUID, views: Mapping[uuid.UUID, View]) -> View:
    """The ticket that `view` is to be merged into. Raises Refused."""
    into = views.get(into_id)
    if into is None or not may_see(agent, into):
        detail = f"there is no ticket {into_id}, or none that your token may see: check `into`"
        raise Refused(Refusal(RefusalCode.NO_SUCH_TICKET, detail))
    refused = merge_refusal(view.ticket, view.brand, into.ticket, into.brand)
    if refused is not None:
        raise Refused(refused)
    return into


def _taken_back(view: View, now: datetime) -> TicketActivity:
    ticket = view.ticket
    assert ticket.claim_expires_at is not None
    return TicketActivity(
        ticket_id=ticket.ticket_id,
        activity_id=f"desk:{TAKE_BACK}:{ticket.claim_expires_at.isoformat()}",
        kind=ActivityKind.RELEASED,
        agent=DESK,
        at=_not_before(now, ticket),
        queue=ticket.queue,
        release_reason=ReleaseReason.TAKE_BACK,
        brand=view.brand,
    )


def _not_before(now: datetime, ticket: Ticket) -> datetime:
    """Another replica's clock may be ahead: what an agent does to what he sees comes after it, whatever ours says."""
    return max(now, ticket.state_at or now, ticket.corrected_at or now)
