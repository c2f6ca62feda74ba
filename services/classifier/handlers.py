"""What the classifier does with records: messages and corrections become decisions, decisions become queues."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from services.classifier import storage
from services.classifier.domain.decide import Classifier, Decision, Message
from services.classifier.domain.routing import (
    contact_known,
    left_by,
    message_of,
    routed_by_agent,
    routed_by_deletion,
    routed_by_message,
    taken_back,
    without_words,
)
from services.classifier.domain.tickets import correct, merge
from services.classifier.storage import Feedback, NewDecision, StoredDecision, StoredTicket
from shared import metrics, tracing
from shared.broker import Publisher
from shared.cloudevents import Outgoing, Received
from shared.database import Database
from shared.delivery import Refusal
from shared.events import ActivityKind, TicketActivity, TicketMessage, TicketRouted
from shared.labels import brand_label
from shared.taxonomy import Queue
from shared.topics import queue_topic_name

_MESSAGES_GROUP: Final = "classifier.tickets.messages"
_ACTIVITY_GROUP: Final = "classifier.tickets.activity"
_BY_AGENT: Final = "agent:"
_ENDING_OR_REOPENING: Final = frozenset({ActivityKind.RESOLVED, ActivityKind.MERGED, ActivityKind.REOPENED})


class Handlers:
    """State first, then publish, then commit: after a crash in between, the same records come again and what they had
    led to is published again, the same to the byte.
    """

    def __init__(
        self, database: Database, publisher: Publisher, classifier: Classifier, decisions_kept: timedelta
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._classifier = classifier
        self._decisions_kept = decisions_kept

    async def on_messages(self, batch: Sequence[Received[TicketMessage]]) -> None:
        """Every message yields exactly one TicketRouted."""
        messages = [message_of(received.event) for received in batch]
        begun_ns = time.time_ns()
        decisions = await decide(self._classifier, messages)
        decided_at = datetime.now(UTC)
        if tracing.is_on():
            _trace(batch, decisions, begun_ns)
        rules = self._classifier.rulebook.priorities
        async with self._database.transaction() as connection:
            tickets = await storage.lock_tickets(connection, [received.event.ticket_id for received in batch])
            known = await storage.decisions_on(connection, [received.event.event_id for received in batch])
            made: list[NewDecision] = []
            decided: list[Decision | None] = []
            for received, message, decision in zip(batch, messages, decisions, strict=True):
                event = received.event
                if event.event_id in known:
                    continue
                before = tickets.get(event.ticket_id)
                if event.deletes is not None and before is not None:
                    made, gone = await _without_words(connection, event, made)
                    last = without_words(before.event) if before.event.sequence in gone else before.event
                    state = replace(before.state, revision=before.state.revision + 1)
                    told = routed_by_deletion(event, last, state.revision, decided_at)
                    decided.append(None)
                else:
                    routed = merge(
                        before.state if before else None,
                        decision,
                        message,
                        event.sent_at,
                        rules,
                        is_edit=event.edits is not None,
                    )
                    state, told = routed.state, routed_by_message(event, decision, routed, decided_at)
                    decided.append(decision)
                made.append(NewDecision(received.origin, state, told))
                tickets[event.ticket_id] = StoredTicket(state, told)
                # A second record of the same message in this batch is a duplicate of this one.
                known[event.event_id] = StoredDecision(received.origin, "")
            await storage.save(connection, made)
        await self._publish(batch, known, made, _MESSAGES_GROUP)
        for one, by_decision in zip(made, decided, strict=True):
            if by_decision is not None:
                _measure(one.event, by_decision, decided_at)

    async def on_activities(self, batch: Sequence[Received[TicketActivity]]) -> list[Refusal]:
        """A correction is routed, whoever made it: the desk does not publish it, so there is one way for every tool."""
        endings = {
            received.event.ticket_id: None if received.event.kind is ActivityKind.REOPENED else received.event.at
            for received in batch
            if received.event.kind in _ENDING_OR_REOPENING
        }
        corrections = [received for received in batch if received.event.kind is ActivityKind.CORRECTED]
        if not endings and not corrections:
            return []
        decided_at = datetime.now(UTC)
        refusals: list[Refusal] = []
        async with self._database.transaction() as connection:
            tickets = await storage.lock_known_tickets(
                connection, [*endings, *(received.event.ticket_id for received in corrections)]
            )
            known = await storage.decisions_on(connection, [received.event.event_id for received in corrections])
            made: list[NewDecision] = []
            feedback: list[Feedback] = []
            for received in corrections:
                activity = received.event
                if activity.event_id in known:
                    continue
                before = tickets.get(activity.ticket_id)
                if before is None:
                    refusals.append(Refusal(received, "ticket_id: no message of this ticket has been routed"))
                    continue
                routed = correct(
                    before.state,
                    activity,
                    contact_known=contact_known(before.event),
                    model=before.event.trace.model,
                )
                told = routed_by_agent(activity, before.event, routed, decided_at)
                made.append(NewDecision(received.origin, routed.state, told))
                feedback.append(Feedback(activity, before.event))
                tickets[activity.ticket_id] = StoredTicket(routed.state, told)
                known[activity.event_id] = StoredDecision(received.origin, "")
            await storage.save(connection, made)
            if feedback:
                await storage.add_feedback(connection, feedback)
            if endings:
                await storage.mark_resolved(connection, endings)
        for one in feedback:
            _measure_correction(one)
        refused = {refusal.received.origin for refusal in refusals}
        routed_again = [received for received in corrections if received.origin not in refused]
        await self._publish(routed_again, known, made, _ACTIVITY_GROUP)
        return refusals

    async def prune(self) -> None:
        """Forget decisions that no redelivery can ask for any more."""
        deleted = 1
        while deleted:
            async with self._database.transaction() as connection:
                deleted = await storage.prune(connection, datetime.now(UTC) - self._decisions_kept)

    async def _publish(
        self,
        batch: Sequence[Received[Any]],
        known: dict[Any, StoredDecision],
        made: Iterable[NewDecision],
        group: str,
    ) -> None:
        """What these very records have led to, now or before; what another record of the same cause led to is out."""
        new = {decision.event.cause_id: decision.event for decision in made}
        outgoing: list[Outgoing] = []
        duplicates = 0
        for received in batch:
            cause_id = received.event.event_id
            decided = known[cause_id]
            if decided.origin != received.origin:
                duplicates += 1
                continue
            event = new.get(cause_id) or decided.event()
            left = left_by(event)
            if left is not None:
                outgoing.append(Outgoing(queue_topic_name(left.queue), left, received.traceparent))
            outgoing.append(Outgoing(queue_topic_name(event.queue), event, received.traceparent))
        if outgoing:
            await self._publisher.publish(outgoing)
        if duplicates:
            metrics.RECORDS_DUPLICATE.labels(group).inc(duplicates)


async def decide(classifier: Classifier, messages: Sequence[Message]) -> list[Decision]:
    """One decision for each message, in order.

    In a thread of its own: deciding is pure computation, and heartbeats and health checks must get their turn in
    between, whatever the length of a message.
    """
    return await asyncio.to_thread(classifier.classify_all, messages)


async def _without_words(
    connection: AsyncConnection, deletion: TicketMessage, made: Sequence[NewDecision]
) -> tuple[list[NewDecision], set[int]]:
    """Rub out what a customer took back: in what is stored, and in what is about to be. And which messages said it."""
    of_ticket = [item.event for item in made if item.event.ticket_id == deletion.ticket_id]
    stored = await storage.decisions_of(connection, deletion.ticket_id)
    gone = taken_back(deletion, [*stored, *of_ticket])
    await storage.rewrite(connection, [without_words(told) for told in stored if told.sequence in gone])
    rubbed_out = [
        replace(item, event=without_words(item.event))
        if item.event.ticket_id == deletion.ticket_id and item.event.sequence in gone
        else item
        for item in made
    ]
    return rubbed_out, gone


def _trace(batch: Sequence[Received[TicketMessage]], decisions: Sequence[Decision], begun_ns: int) -> None:
    """A span for each message, as long as it took to decide them all: they are decided together."""
    ended_ns = time.time_ns()
    for received, decision in zip(batch, decisions, strict=True):
        span = tracing.begin(
            "classify",
            received.traceparent,
            attributes={
                tracing.TICKET: str(received.event.ticket_id),
                "switchyard.category": decision.category,
                "switchyard.queue": decision.queue,
                "switchyard.confidence": decision.confidence,
                "switchyard.model": decision.model,
                "switchyard.batch.records": len(batch),
            },
            at_ns=begun_ns,
        )
        span.end(ended_ns)


def _measure(event: TicketRouted, decision: Decision, decided_at: datetime) -> None:
    brand = brand_label(event.brand)
    metrics.DECISIONS.labels(brand, event.category, event.queue, event.priority, event.language).inc()
    triage = "yes" if decision.queue is Queue.TRIAGE else "no"
    metrics.MODEL_DECISIONS.labels(decision.model, decision.category, triage).inc()
    metrics.DECISION_CONFIDENCE.labels(decision.model).observe(decision.confidence)
    age_seconds = max(0.0, (decided_at - event.sent_at).total_seconds())
    metrics.ROUTED_AGE_SECONDS.labels(brand, event.channel, event.priority).observe(age_seconds)


def _measure_correction(feedback: Feedback) -> None:
    """A ticket that an agent has corrected before, or whose category he leaves, tells nothing of the model."""
    told, before = feedback.activity, feedback.before
    if told.category not in (None, before.category) and not before.trace.decided_by.startswith(_BY_AGENT):
        metrics.MODEL_CORRECTIONS.labels(before.trace.model, before.category, told.category).inc()
