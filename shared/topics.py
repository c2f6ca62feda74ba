"""Every topic of Switchyard: name, key, partitions, retention, who writes, who reads. Nothing creates a topic but
from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from shared.events import (
    ChannelMessage,
    DeadLetter,
    DeadLetterHandled,
    Event,
    NotificationOutcome,
    PeakEvent,
    PolicyChanged,
    SlaEvent,
    TicketActivity,
    TicketLeft,
    TicketMessage,
    TicketRouted,
)
from shared.taxonomy import Queue


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic and its whole contract."""

    name: str
    says: str
    key: str
    carries: tuple[type[Event], ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    retention: timedelta
    partitions: int = 6  # one partition is one unit of parallelism; more can be had, fewer never
    dead_letters: bool = True  # whether a record that cannot be processed moves to dead.letters

    def configs(self, replication: int) -> dict[str, str]:
        """Its settings on a broker, as Kafka writes them, when it is kept `replication` times."""
        return {
            "cleanup.policy": "delete",  # never compacted: an event is no state that a later one replaces
            "retention.ms": str(int(self.retention.total_seconds() * 1000)),
            # With acks=all: what was acknowledged outlives a broker, and writing goes on while one is away.
            "min.insync.replicas": str(max(1, replication - 1)),
        }


CHANNEL_MESSAGES: Final = Topic(
    name="channel.messages",
    says="a customer wrote or called (raw, as the channel saw it)",
    key="brand/channel/customer",
    carries=(ChannelMessage,),
    producers=("channels",),
    consumers=("intake",),
    # Raw text may hold secrets: kept only as long as a long outage of intake may last.
    retention=timedelta(days=3),
)
TICKETS_MESSAGES: Final = Topic(
    name="tickets.messages",
    says="an accepted, redacted message of a ticket",
    key="ticket id",
    carries=(TicketMessage,),
    producers=("intake",),
    consumers=("classifier", "sla_timer", "desk", "notifier"),
    retention=timedelta(days=30),
)
TICKETS_ACTIVITY: Final = Topic(
    name="tickets.activity",
    says="what an agent did with a ticket",
    key="ticket id",
    carries=(TicketActivity,),
    producers=("desk", "agents' tools"),
    consumers=("intake", "classifier", "sla_timer", "notifier", "desk"),
    retention=timedelta(days=30),
)
SLA_EVENTS: Final = Topic(
    name="sla.events",
    says="the life of a clock: started, warned, breached, escalated, met, paused, resumed; a change of the policies",
    key="ticket id",
    carries=(SlaEvent, PolicyChanged),
    producers=("sla_timer",),
    consumers=("notifier", "desk"),
    retention=timedelta(days=30),
)
PEAKS_EVENTS: Final = Topic(
    name="peaks.events",
    says="a peak of arrivals began or ended",
    key="brand/queue",
    carries=(PeakEvent,),
    producers=("sla_timer",),
    consumers=("desk",),
    retention=timedelta(days=90),
)
NOTIFICATIONS_OUTCOMES: Final = Topic(
    name="notifications.outcomes",
    says="what became of a notification",
    key="notification id",
    carries=(NotificationOutcome,),
    producers=("notifier",),
    consumers=("desk",),
    retention=timedelta(days=30),
)
DEAD_LETTERS: Final = Topic(
    name="dead.letters",
    says="what could not be processed, replayable, and what operators did about it",
    key="key of the original record",
    carries=(DeadLetter, DeadLetterHandled),
    producers=("intake", "classifier", "sla_timer", "notifier", "desk", "operators"),
    consumers=("people",),
    # Long enough for a person to come back from a holiday and look.
    retention=timedelta(days=30),
    dead_letters=False,
)


def queue_topic_name(queue: Queue) -> str:
    return f"queues.{queue.value}"


QUEUES: Final = tuple(
    Topic(
        name=queue_topic_name(queue),
        says=f"this ticket belongs in {queue.value} (or has left it)",
        key="ticket id",
        carries=(TicketRouted, TicketLeft),
        producers=("classifier",),
        consumers=("agents", "desk", "sla_timer", "notifier"),
        retention=timedelta(days=30),
    )
    for queue in Queue
)

ALL: Final = (
    CHANNEL_MESSAGES,
    TICKETS_MESSAGES,
    *QUEUES,
    TICKETS_ACTIVITY,
    SLA_EVENTS,
    PEAKS_EVENTS,
    NOTIFICATIONS_OUTCOMES,
    DEAD_LETTERS,
)
BY_NAME: Final = {topic.name: topic for topic in ALL}
