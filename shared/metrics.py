"""Every metric of the project, in one place, so that a misspelt name is a type error and no two services name a thing
twice.

All carry at least one label: a metric appears on a service's `/metrics` only once that service has used it. Labels
are closed sets (brands and queues come from configuration and taxonomy), never a ticket, a customer or a text.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

REGISTRY: Final = CollectorRegistry()
for _collector in (ProcessCollector, PlatformCollector, GCCollector):
    _collector(registry=REGISTRY)

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)

# --- delivery: every service that consumes -------------------------------------------------------------------------
RECORDS_CONSUMED: Final = Counter(
    "switchyard_records_consumed",
    "Records taken from a topic and committed",
    ["group", "topic"],
    registry=REGISTRY,
)
RECORDS_DUPLICATE: Final = Counter(
    "switchyard_records_duplicate", "Records whose effect had been made before", ["group"], registry=REGISTRY
)
BATCH_SECONDS: Final = Histogram(
    "switchyard_batch_seconds", "Time to handle one batch", ["group"], buckets=_SECONDS, registry=REGISTRY
)
BATCH_RETRIES: Final = Counter(
    "switchyard_batch_retries", "Batches tried again after a passing fault", ["group"], registry=REGISTRY
)
CONSUMER_PAUSED: Final = Gauge(
    "switchyard_consumer_paused",
    "1 while a consumer waits for a dependency or a better deploy",
    ["group"],
    registry=REGISTRY,
)
CONSUMER_LAG: Final = Gauge(
    "switchyard_consumer_lag_records",
    "Records written and not yet taken",
    ["group", "topic", "partition"],
    registry=REGISTRY,
)
LOOP_PROGRESS: Final = Gauge(
    "switchyard_loop_progress_timestamp_seconds",
    "When a consumer last finished a batch",
    ["group"],
    registry=REGISTRY,
)
DEAD_LETTERS: Final = Counter(
    "switchyard_dead_letters",
    "Records moved to dead.letters",
    ["group", "topic", "reason"],
    registry=REGISTRY,
)
RECORDS_PUBLISHED: Final = Counter(
    "switchyard_records_published",
    "Records acknowledged by the broker",
    ["service", "topic"],
    registry=REGISTRY,
)
PUBLISH_FAILURES: Final = Counter(
    "switchyard_publish_failures",
    "Records that the broker did not acknowledge",
    ["service", "topic"],
    registry=REGISTRY,
)

# --- outbox and deadlines ------------------------------------------------------------------------------------------
OUTBOX_DEPTH: Final = Gauge(
    "switchyard_outbox_depth", "Events stored and not yet published", ["service"], registry=REGISTRY
)
DEADLINES_FIRED: Final = Counter(
    "switchyard_deadlines_fired", "Deadlines that fired", ["service", "kind"], registry=REGISTRY
)
DEADLINE_LATENESS_SECONDS: Final = Histogram(
    "switchyard_deadline_lateness_seconds",
    "Fired time minus due time",
    ["service", "kind"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0),
    registry=REGISTRY,
)

# --- intake --------------------------------------------------------------------------------------------------------
MESSAGES_ACCEPTED: Final = Counter(
    "switchyard_messages_accepted",
    "Customers' messages accepted",
    ["brand", "channel", "disposition"],
    registry=REGISTRY,
)
MESSAGES_DUPLICATE: Final = Counter(
    "switchyard_messages_duplicate",
    "Messages that had been accepted before",
    ["brand", "channel"],
    registry=REGISTRY,
)
MESSAGES_FOLDED: Final = Counter(
    "switchyard_messages_folded",
    "Messages of floods, which are told together when their window is over",
    ["brand", "channel"],
    registry=REGISTRY,
)
MESSAGES_REJECTED: Final = Counter(
    "switchyard_messages_rejected", "Messages refused over HTTP", ["channel", "reason"], registry=REGISTRY
)
CHANNEL_EVENTS_IGNORED: Final = Counter(
    "switchyard_channel_events_ignored",
    "Events of providers that are no message of a customer: receipts, kinds that the adapter does not know",
    ["brand", "channel", "kind"],
    registry=REGISTRY,
)
CHANNEL_PARSE_SECONDS: Final = Histogram(
    "switchyard_channel_parse_seconds",
    "Time to verify and read one request of a provider",
    ["provider"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0),
    registry=REGISTRY,
)
CHANNEL_REPLIES: Final = Counter(
    "switchyard_channel_replies",
    "Tries to hand a reply to a provider: sent, try_again, hopeless",
    ["brand", "channel", "outcome"],
    registry=REGISTRY,
)
SECRETS_CUT: Final = Counter("switchyard_secrets_cut", "Secrets cut from messages", ["kind"], registry=REGISTRY)

# --- classifier ----------------------------------------------------------------------------------------------------
DECISIONS: Final = Counter(
    "switchyard_decisions",
    "Messages decided: where each put its ticket",
    ["category", "queue", "priority", "language"],
    registry=REGISTRY,
)
# Drift is watched by model: what is decided, how surely, how much goes to a person, and how much agents correct.
MODEL_DECISIONS: Final = Counter(
    "switchyard_model_decisions",
    "Messages decided: what a model made of each by itself",
    ["model", "category", "triage"],
    registry=REGISTRY,
)
MODEL_CORRECTIONS: Final = Counter(
    "switchyard_model_corrections",
    "Tickets whose category an agent corrected, once each, by the model that had decided it",
    ["model", "category", "corrected_to"],
    registry=REGISTRY,
)
DECISION_CONFIDENCE: Final = Histogram(
    "switchyard_decision_confidence",
    "Confidence of the classifier in what a message is about",
    ["model"],
    buckets=tuple(step / 20 for step in range(1, 21)),
    registry=REGISTRY,
)
ROUTED_AGE_SECONDS: Final = Histogram(
    "switchyard_routed_age_seconds",
    "From the customer's message to its place in a queue",
    ["brand"],
    buckets=_SECONDS,
    registry=REGISTRY,
)

# --- sla_timer -----------------------------------------------------------------------------------------------------
CLOCK_EVENTS: Final = Counter(
    "switchyard_clock_events", "Events of clocks", ["target", "kind", "priority"], registry=REGISTRY
)
POLICIES_REJECTED: Final = Gauge(
    "switchyard_policies_rejected", "1 while the files of the policies cannot be used", ["service"], registry=REGISTRY
)
CLOCKS_OPEN: Final = Gauge("switchyard_clocks_open", "Clocks running or paused", ["target"], registry=REGISTRY)
RESPONSE_SECONDS: Final = Histogram(
    "switchyard_response_business_seconds",
    "Business time until a promise was met",
    ["target", "brand", "priority", "peak"],
    buckets=(10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400, 259200),
    registry=REGISTRY,
)
PEAK_ACTIVE: Final = Gauge(
    "switchyard_peak_active",
    "1 during a peak (channel `*`: of all channels together)",
    ["brand", "queue", "channel"],
    registry=REGISTRY,
)
ARRIVALS: Final = Counter("switchyard_arrivals", "Tickets opened", ["brand", "queue", "channel"], registry=REGISTRY)

# --- notifier ------------------------------------------------------------------------------------------------------
DELIVERIES: Final = Counter(
    "switchyard_deliveries",
    "Tries to deliver a notification",
    ["kind", "output", "status"],
    registry=REGISTRY,
)
DELIVERY_SECONDS: Final = Histogram(
    "switchyard_delivery_seconds", "Duration of one try", ["output"], buckets=_SECONDS, registry=REGISTRY
)
NOTIFICATIONS_PENDING: Final = Gauge(
    "switchyard_notifications_pending", "Notifications not yet delivered", ["output"], registry=REGISTRY
)

# --- desk ----------------------------------------------------------------------------------------------------------
QUEUE_WAITING: Final = Gauge(
    "switchyard_queue_waiting", "Tickets waiting in a queue", ["queue", "priority"], registry=REGISTRY
)
QUEUE_OLDEST_SECONDS: Final = Gauge(
    "switchyard_queue_oldest_age_seconds", "Age of the oldest waiting ticket", ["queue"], registry=REGISTRY
)
CLAIMS: Final = Counter("switchyard_claims", "Tickets claimed", ["queue"], registry=REGISTRY)
TAKE_BACKS: Final = Counter(
    "switchyard_take_backs", "Tickets taken back from a silent agent", ["queue"], registry=REGISTRY
)
AGENT_ACTIONS: Final = Counter("switchyard_agent_actions", "What agents did", ["kind"], registry=REGISTRY)
POINTS_LEFT_OPEN: Final = Counter(
    "switchyard_points_left_open",
    "Points of tickets resolved at the desk that nobody had ticked off",
    ["queue"],
    registry=REGISTRY,
)

# --- HTTP surfaces -------------------------------------------------------------------------------------------------
HTTP_REQUESTS: Final = Counter(
    "switchyard_http_requests",
    "Requests answered",
    ["service", "route", "method", "status"],
    registry=REGISTRY,
)
