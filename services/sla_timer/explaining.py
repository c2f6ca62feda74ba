"""Reads what a ticket was promised, and has it explained on the calendars of their time."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.sla_timer import storage
from services.sla_timer.domain.clocks import Ticket
from services.sla_timer.domain.explain import explained
from services.sla_timer.domain.policies import Policies
from shared.taxonomy import Channel

_FIND: Final = text(
    "SELECT ticket_id, brand, channel, opened_at FROM sla_timer.tickets "
    "WHERE ticket_id::text LIKE :beginning AND brand IS NOT NULL AND channel IS NOT NULL AND opened_at IS NOT NULL "
    "ORDER BY ticket_id LIMIT 3"
)


class NotOneTicket(ValueError):
    """No ticket begins so, or several do."""


async def explain(connection: AsyncConnection, reference: str, policies: Policies, now: datetime) -> str:
    """`reference`: a ticket's id or its first digits. Raises NotOneTicket."""
    found = (await connection.execute(_FIND, {"beginning": f"{reference}%"})).all()
    if not found:
        raise NotOneTicket(f"nothing has been promised about a ticket {reference}, or it has been forgotten since")
    if len(found) > 1:
        raise NotOneTicket(f"several tickets begin with {reference}; give more of the id: {found[0].ticket_id}, ...")
    (row,) = found
    ticket = Ticket(row.ticket_id, row.brand, Channel(row.channel), row.opened_at)
    policies.learn(await storage.archived_calendars(connection))
    clocks = (await storage.clocks_of(connection, [ticket.id])).get(ticket.id, {})
    return explained(ticket, list(clocks.values()), policies.calendar, now)
