"""What intake does with records: messages become tickets, resolutions end them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from services.intake.acceptance import Acceptance, Incoming, Status, publishable
from services.intake.domain import wrong_sent_at
from shared import metrics
from shared.broker import Publisher
from shared.cloudevents import Received
from shared.delivery import Refusal
from shared.events import ActivityKind, ChannelMessage, TicketActivity

_GROUP: Final = "intake.channel.messages"
_KINDS_THAT_MATTER: Final = frozenset({ActivityKind.RESOLVED, ActivityKind.MERGED, ActivityKind.REOPENED})


class Handlers:
    def __init__(self, acceptance: Acceptance, publisher: Publisher, message_oldest: timedelta | None) -> None:
        self._acceptance = acceptance
        self._publisher = publisher
        self._message_oldest = message_oldest

    async def on_messages(self, batch: Sequence[Received[ChannelMessage]]) -> list[Refusal]:
        """Store, then publish, then let the batch be committed.

        After a crash in between, the batch comes again: what these very records have stored is published again, the
        same to the byte; what the channel has sent twice is not.
        """
        now = datetime.now(UTC)
        refusals = []
        incoming = []
        for received in batch:
            why_not = wrong_sent_at(received.event.sent_at, now, self._message_oldest)
            if why_not is None:
                incoming.append(Incoming(received.event, received.origin, received.traceparent))
            else:
                refusals.append(Refusal(received, f"sent_at: {why_not}"))
        if incoming:
            outcomes = await self._acceptance.accept(incoming, into_outbox=False)
            await self._publisher.publish([outcome.outgoing() for outcome in publishable(outcomes)])
            duplicates = sum(outcome.status is not Status.NEW for outcome in outcomes)
            metrics.RECORDS_DUPLICATE.labels(_GROUP).inc(duplicates)
        return refusals

    async def on_activities(self, batch: Sequence[Received[TicketActivity]]) -> None:
        """Resolved and merged tickets end, reopened ones go on; what else agents do is no matter of intake."""
        activities = [received.event for received in batch if received.event.kind in _KINDS_THAT_MATTER]
        if activities:
            await self._acceptance.apply(activities)
