"""The desk's HTTP API: who asks, what they may, and the answers."""

# No `from __future__ import annotations` here: FastAPI reads the routes' annotations, and `SignedIn` is not a global.

import uuid
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse
from sqlalchemy.ext.asyncio import AsyncConnection

from services.desk import storage
from services.desk.actions import Change, Desk, KeyReused, NoSuchPoint, NotFound, Refused, Request, may_see
from services.desk.agents import Agent, Directory
from services.desk.domain import Action, Refusal, RefusalCode, State
from services.desk.domain_view import View
from services.desk.live import LiveQueues
from services.desk.models import (
    Me,
    MergeBody,
    NoteBody,
    PointBody,
    QueuesNow,
    RelatedTicket,
    ReplyBody,
    RerouteBody,
    TicketDetail,
    TicketPage,
    TicketSummary,
    cursor_of,
    rank_of,
)
from services.desk.reports import ReportQuery, Reports
from shared.database import Database
from shared.http import Problem, RateLimiter, bearer_token, forbidden, unauthorized
from shared.taxonomy import CATEGORIES, Queue

MAX_PAGE: Final = 200
HISTORY_SHOWN: Final = 500
"""Events of a ticket in one answer: the latest; a ticket with more is a conversation that never ends."""
_WRONG_INTO: Final = frozenset({RefusalCode.SAME_TICKET, RefusalCode.NO_SUCH_TICKET, RefusalCode.OTHER_BRAND})
"""What no change of a ticket's state would make possible."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="any string of your own: a request sent again with the same key does nothing and is answered alike",
    ),
]


def build_router(
    database: Database, directory: Directory, desk: Desk, live: LiveQueues, reports: Reports, limiter: RateLimiter
) -> APIRouter:
    """Routes under /v1. Every one needs a bearer token."""

    def signed_in(request: HttpRequest) -> Agent:
        agent = directory.authenticate(bearer_token(request))
        if agent is None:
            raise unauthorized("this token is not known here; ask a lead for yours")
        limiter.check(agent.id)
        return agent

    SignedIn = Annotated[Agent, Depends(signed_in)]  # noqa: N806 - a type
    router = APIRouter(prefix="/v1")

    def asking(agent: Agent, key: str | None) -> Request:
        if not agent.may_act:
            raise forbidden(f"{agent.id} is a {agent.role.value}, who looks and changes nothing")
        return Request(agent, datetime.now(UTC), key)

    async def detail(ticket_id: uuid.UUID, agent: Agent) -> TicketDetail:
        async with database.transaction() as connection:
            view = await storage.find(connection, ticket_id)
            if view is None or not may_see(agent, view):
                raise _not_found(ticket_id)
            return await _detail_of(connection, view, agent)

    async def act(ticket_id: uuid.UUID, action: Action, change: Change, agent: Agent, key: str | None) -> TicketDetail:
        request = asking(agent, key)
        try:
            await desk.act(ticket_id, action, change, request)
        except NotFound as error:
            raise _not_found(ticket_id) from error
        except Refused as error:
            raise _refused(error.refusal) from error
        except KeyReused as error:
            raise _key_reused() from error
        return await outcome(ticket_id, agent)

    async def outcome(ticket_id: uuid.UUID, agent: Agent) -> TicketDetail:
        async with database.transaction() as connection:
            # Not `detail`: who has just moved a ticket out of his sight sees once more what became of it.
            view = await storage.find(connection, ticket_id)
            assert view is not None
            return await _detail_of(connection, view, agent)

    @router.get("/me")
    async def me(agent: SignedIn) -> Me:
        """Who the token belongs to."""
        return Me.of(agent)

    @router.get("/queues")
    async def queues(agent: SignedIn) -> QueuesNow:
        """Every queue that the token may see, as it is now."""
        return await live.now(agent)

    @router.get("/queues/stream", response_class=StreamingResponse)
    async def stream(agent: SignedIn) -> StreamingResponse:
        """The same as server-sent events: one at once, one on every change."""
        await live.now(agent)  # while an error can still be answered as one
        return StreamingResponse(
            live.changes(agent), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    @router.post("/queues/{queue}/claim", responses={204: {"description": "nothing waits there"}})
    async def claim(queue: Queue, agent: SignedIn, key: IdempotencyKey = None) -> TicketDetail:
        """Claim the next ticket of a queue, by the queue order."""
        request = asking(agent, key)
        if not agent.may_see_queue(queue):
            raise forbidden(f"{agent.id} does not work in queue {queue.value}")
        try:
            ticket_id = await desk.claim(queue, request)
        except KeyReused as error:
            raise _key_reused() from error
        if ticket_id is None:
            return Response(status_code=204)  # type: ignore[return-value]
        return await detail(ticket_id, agent)

    @router.get("/report")
    async def report(query: Annotated[ReportQuery, Query()], agent: SignedIn) -> Response:
        """Response times and the backlog, for leads and viewers: docs/reports.md."""
        return await reports.answer(agent, query)

    @router.get("/tickets")
    async def tickets(
        agent: SignedIn,
        queue: Queue | None = None,
        state: State | None = None,
        claimed_by: Annotated[str | None, Query(max_length=200)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        cursor: Annotated[str | None, Query(max_length=300)] = None,
    ) -> TicketPage:
        """Tickets in queue order. `claimed_by=me` for one's own."""
        if queue is not None and not agent.may_see_queue(queue):
            raise forbidden(f"{agent.id} does not work in queue {queue.value}")
        queues = [queue] if queue is not None else None if agent.queues == "all" else sorted(agent.queues)
        try:
            after = None if cursor is None else rank_of(cursor)
        except ValueError as error:
            raise Problem(
                422,
                "Invalid request",
                "`cursor` is not one that this API gave; start without it",
                errors=[{"field": "cursor", "detail": "not a cursor of this API"}],
            ) from error
        wanted = storage.Filter(
            queues=queues,
            brands=None if agent.brands == "all" else agent.brands,
            state=state,
            claimed_by=agent.id if claimed_by == "me" else claimed_by,
        )
        async with database.transaction() as connection:
            views = await storage.page(connection, wanted, after, limit + 1)
            open_points = await storage.open_points(connection, [view.ticket.ticket_id for view in views[:limit]])
        more = len(views) > limit
        return TicketPage(
            tickets=[TicketSummary.of(view, open_points[view.ticket.ticket_id]) for view in views[:limit]],
            cursor=cursor_of(views[limit - 1].ticket.rank) if more else None,
        )

    @router.get("/tickets/{ticket_id}")
    async def ticket(ticket_id: uuid.UUID, agent: SignedIn) -> TicketDetail:
        """One ticket, with its points, its history and the trace of the decision."""
        return await detail(ticket_id, agent)

    @router.put("/tickets/{ticket_id}/points/{point_id}")
    async def tick(ticket_id: uuid.UUID, point_id: uuid.UUID, body: PointBody, agent: SignedIn) -> TicketDetail:
        """Tick off a matter that the customer raised, or open it again. The same once more changes nothing."""
        request = asking(agent, None)
        try:
            await desk.tick(ticket_id, point_id, request, done=body.done)
        except NotFound as error:
            raise _not_found(ticket_id) from error
        except NoSuchPoint as error:
            raise Problem(404, "Not Found", f"ticket {ticket_id} has no point {point_id}: see its `points`") from error
        except Refused as error:
            raise _refused(error.refusal) from error
        return await outcome(ticket_id, agent)

    @router.post("/tickets/{ticket_id}/reply")
    async def reply(ticket_id: uuid.UUID, body: ReplyBody, agent: SignedIn, key: IdempotencyKey = None) -> TicketDetail:
        """Answer the customer."""
        return await act(ticket_id, Action.REPLY, Change(text=body.text), agent, key)

    @router.post("/tickets/{ticket_id}/wait")
    async def wait(
        ticket_id: uuid.UUID, agent: SignedIn, body: NoteBody | None = None, key: IdempotencyKey = None
    ) -> TicketDetail:
        """Wait on the customer: his next message puts the ticket back into its queue."""
        return await act(ticket_id, Action.WAIT, _note(body), agent, key)

    @router.post("/tickets/{ticket_id}/resolve")
    async def resolve(
        ticket_id: uuid.UUID, agent: SignedIn, body: NoteBody | None = None, key: IdempotencyKey = None
    ) -> TicketDetail:
        """End it. Possible with points that are not ticked off: `open_points` tells how many."""
        return await act(ticket_id, Action.RESOLVE, _note(body), agent, key)

    @router.post("/tickets/{ticket_id}/merge")
    async def merge(ticket_id: uuid.UUID, body: MergeBody, agent: SignedIn, key: IdempotencyKey = None) -> TicketDetail:
        """End this ticket in favour of another of the same brand, which goes on for both and returns to its queue if it
        waited on the customer or was resolved. 422 when `into` cannot be the other, 409 when it is merged itself.
        """
        return await act(ticket_id, Action.MERGE, Change(text=body.note, merged_into=body.into), agent, key)

    @router.post("/tickets/{ticket_id}/reopen")
    async def reopen(
        ticket_id: uuid.UUID, agent: SignedIn, body: NoteBody | None = None, key: IdempotencyKey = None
    ) -> TicketDetail:
        """Take up a resolved ticket again; it is claimed by who reopens it. Not one that was merged into another."""
        return await act(ticket_id, Action.REOPEN, _note(body), agent, key)

    @router.post("/tickets/{ticket_id}/release")
    async def release(
        ticket_id: uuid.UUID, agent: SignedIn, body: NoteBody | None = None, key: IdempotencyKey = None
    ) -> TicketDetail:
        """Give a claimed ticket back to its queue, at its place."""
        return await act(ticket_id, Action.RELEASE, _note(body), agent, key)

    @router.post("/tickets/{ticket_id}/reroute")
    async def reroute(
        ticket_id: uuid.UUID, body: RerouteBody, agent: SignedIn, key: IdempotencyKey = None
    ) -> TicketDetail:
        """Correct where a ticket belongs, what it is about, or how urgent it is."""
        queue = body.queue or (CATEGORIES[body.category].queue if body.category else None)
        change = Change(text=body.note, queue=queue, category=body.category, priority=body.priority)
        return await act(ticket_id, Action.REROUTE, change, agent, key)

    return router


async def _detail_of(connection: AsyncConnection, view: View, agent: Agent) -> TicketDetail:
    ticket_id = view.ticket.ticket_id
    return TicketDetail.whole(
        view,
        await storage.points(connection, ticket_id),
        await storage.merged_here(connection, ticket_id),
        [
            RelatedTicket.of(other, visible=may_see(agent, other))
            for other in await storage.related(connection, ticket_id)
        ],
        await storage.history(connection, ticket_id, HISTORY_SHOWN),
    )


def _note(body: NoteBody | None) -> Change:
    return Change(text=body.note if body else None)


def _not_found(ticket_id: uuid.UUID) -> Problem:
    return Problem(404, "Not Found", f"there is no ticket {ticket_id}, or none that your token may see")


def _refused(refusal: Refusal) -> Problem:
    status, field = (422, "into") if refusal.code in _WRONG_INTO else (409, "state")
    return Problem(
        status,
        refusal.code.value.replace("_", " ").capitalize(),
        refusal.detail,
        errors=[{"field": field, "detail": refusal.code.value}],
    )


def _key_reused() -> Problem:
    return Problem(
        422,
        "Idempotency-Key reused",
        "this Idempotency-Key was sent before with another request; use a new one for a new request",
        errors=[{"field": "Idempotency-Key", "detail": "sent before with another request"}],
    )
