"""Tells floods: when a window is over, one message stands for those that were not told one by one."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from services.intake import storage
from services.intake.domain_floods import fold
from services.intake.storage import DEADLINES
from shared import topics
from shared.cloudevents import Outgoing, trace_of
from shared.deadlines import Deadline
from shared.outbox import Outbox

_LOOK_AGAIN: Final = timedelta(seconds=0.5)


class Floods:
    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def tell(self, connection: AsyncConnection, due: Sequence[Deadline], now: datetime) -> None:
        """Tell what waits of the floods that are due (`shared.deadlines.Fire`).

        One whose conversation is being written to right now is not waited for, but looked at again in a moment.
        """
        waiting = {item.flood.flood_id: item for item in await storage.waiting_floods(connection, _subjects(due))}
        held = await storage.lock_free_conversations(connection, [item.flood.ticket_id for item in waiting.values()])
        ticket_ids = {item.flood.ticket_id for item in waiting.values()}
        tickets = {
            ticket.ticket_id: ticket
            for ticket in await storage.tickets_of_activities(connection, ticket_ids, held)
            if ticket.conversation_id in held
        }
        # After the lock: another part may have been told since.
        free = [
            item for item in await storage.waiting_floods(connection, list(waiting)) if item.flood.ticket_id in tickets
        ]
        folded = await storage.folded_messages(connection, free) if free else {}
        events = []
        told = []
        for item in sorted(free, key=lambda item: item.flood):
            messages = folded.get(item.flood, [])
            if not messages:  # all of them were taken back
                told.append(item)
                continue
            of_conversation = [
                ticket
                for ticket in tickets.values()
                if ticket.conversation_id == tickets[item.flood.ticket_id].conversation_id
            ]
            changed, event = fold(item.flood, item.parts + 1, messages, of_conversation, now)
            tickets |= {ticket.ticket_id: ticket for ticket in changed}
            told.append(replace(item, parts=item.parts + 1, told_to=messages[-1].sequence))
            events.append(Outgoing(topics.TICKETS_MESSAGES.name, event, trace_of(event)))
        if told:
            await storage.save_tickets(connection, list(tickets.values()))
            await storage.save_floods(connection, told)
            await self._outbox.add(connection, events)
        done = {item.flood.flood_id for item in free}
        await DEADLINES.schedule(
            connection, [replace(item, due_at=now + _LOOK_AGAIN, attempt=0) for item in due if item.subject not in done]
        )


def _subjects(due: Sequence[Deadline]) -> list[uuid.UUID]:
    return [item.subject for item in due]
