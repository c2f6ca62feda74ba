"""Every metric of the project, in one place, so that a misspelt name is a type error and no two services name a thing
twice.

All carry at least one label: a metric appears on a service's `/metrics` only once that service has used it; series
that an alert watches are made at start with 0, since a counter that begins at 1 has no increase. Labels are closed
sets (brands and queues come from configuration and taxonomy), never a ticket, a customer or a text.

Counters and histograms are each replica's own: add them up. Gauges marked "of the database" are read from it, so every
replica tells the same: take `max`, never `sum`.
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
    "Records written and not yet handled; of the partitions that this replica has",
    ["group", "topic", "partition"],
    registry=REGISTRY,
)
LOOP_PROGRESS: Final = Gauge(
    "switchyard_loop_progress_timestamp_seconds",
    "When a consumer last finished a batch, or found that there is nothing to do",
    ["group"],
    registry=REGISTRY,
)
DEAD_LETTERS: Final = Counter(
    "switchyard_dead_letters",
    "Records moved to dead.letters",
    ["group", "topic", "reason"],
    registry=REGISTRY,
)
RECORD_AGE_SECONDS: Final = Histogram(
    "switchyard_record_age_seconds",
    "From a record's time stamp to the commit of its effects",
    ["group"],
    buckets=_SECONDS,
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
    "switchyard_outbox_depth", "Events stored and not yet published (of the database)", ["service"], registry=REGISTRY
)
OUTBOX_OLDEST_SECONDS: Final = Gauge(
    "switchyard_outbox_oldest_age_seconds",
    "Age of the oldest event not yet published, 0 when there is none (of the database)",
    ["service"],
    registry=REGISTRY,
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

# --- database ------------------------------------------------------------------------------------------------------
DATABASE_POOL: Final = Gauge(
    "switchyard_database_pool_connections",
    "Connections of this process: most (what it may open), in_use, idle",
    ["service", "state"],
    registry=REGISTRY,
)
DATABASE_SIZE_BYTES: Final = Gauge(
    "switchyard_database_size_bytes",
    "Tables of the service's schema with their indexes (of the database)",
    ["service"],
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
    ["brand", "category", "queue", "priority", "language"],
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
    ["brand", "channel", "priority"],
    buckets=_SECONDS,
    registry=REGISTRY,
)

# --- sla_timer -----------------------------------------------------------------------------------------------------
CLOCK_EVENTS: Final = Counter(
    "switchyard_clock_events",
    "Events of clocks: started, warning, breached, escalated, met, paused, resumed, ...",
    ["target", "kind", "brand", "queue", "priority"],
    registry=REGISTRY,
)
PROMISES: Final = Counter(
    "switchyard_promises",
    "Promises that were kept (met without a breach) or broken (breached, counted when it happens)",
    ["target", "brand", "queue", "priority", "peak", "outcome"],
    registry=REGISTRY,
)
POLICIES_REJECTED: Final = Gauge(
    "switchyard_policies_rejected", "1 while the files of the policies cannot be used", ["service"], registry=REGISTRY
)
CLOCKS_OPEN: Final = Gauge(
    "switchyard_clocks_open",
    "Clocks that are running (and not overdue), paused, or overdue (breached and still not met) (of the database)",
    ["target", "brand", "queue", "priority", "state"],
    registry=REGISTRY,
)
_RESPONSES: Final = (10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400, 259200)
RESPONSE_SECONDS: Final = Histogram(
    "switchyard_response_business_seconds",
    "Business time until a promise was met",
    ["target", "brand", "queue", "priority", "peak"],
    buckets=_RESPONSES,
    registry=REGISTRY,
)
RESPONSE_SHARE: Final = Histogram(
    "switchyard_response_share_of_promise",
    "Business time until a promise was met, as a share of what was promised: over 1 came late",
    ["target", "brand", "queue", "peak"],
    buckets=(0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0),
    registry=REGISTRY,
)
PEAK_ACTIVE: Final = Gauge(
    "switchyard_peak_active",
    "1 during a peak (channel `*`: of all channels together)",
    ["brand", "queue", "channel"],
    registry=REGISTRY,
)
ARRIVALS: Final = Counter("switchyard_arrivals", "Tickets opened", ["brand", "queue", "channel"], registry=REGISTRY)
FORECAST_ARRIVALS: Final = Gauge(
    "switchyard_forecast_arrivals_per_hour",
    "Tickets expected in this half-hour, as a rate per hour: expected, low, high (of the database)",
    ["brand", "bound"],
    registry=REGISTRY,
)
STAFF_NEEDED: Final = Gauge(
    "switchyard_staff_needed",
    "Agents that the forecast of this half-hour needs at work (of the database)",
    ["brand"],
    registry=REGISTRY,
)
HOUR_OF_WEEK_ARRIVALS: Final = Gauge(
    "switchyard_hour_of_week_arrivals",
    "Tickets that arrive in this hour of the week, mean of the last weeks (of the database)",
    ["brand", "weekday", "hour"],
    registry=REGISTRY,
)
HOUR_OF_WEEK_RESPONSE_SECONDS: Final = Gauge(
    "switchyard_hour_of_week_response_p90_business_seconds",
    "First response of tickets that arrived in this hour of the week: p90 of the last weeks (of the database)",
    ["brand", "weekday", "hour"],
    registry=REGISTRY,
)

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
    "switchyard_notifications_pending",
    "Notifications not yet delivered (of the database)",
    ["output"],
    registry=REGISTRY,
)
NOTIFICATIONS_OLDEST_SECONDS: Final = Gauge(
    "switchyard_notifications_oldest_age_seconds",
    "Age of the oldest notification that is due and not delivered, 0 when there is none (of the database)",
    ["output"],
    registry=REGISTRY,
)
NOTIFICATION_AGE_SECONDS: Final = Histogram(
    "switchyard_notification_age_seconds",
    "From the event that a notification tells of to its delivery",
    ["kind", "output"],
    buckets=_SECONDS,
    registry=REGISTRY,
)

# --- desk ----------------------------------------------------------------------------------------------------------
QUEUE_WAITING: Final = Gauge(
    "switchyard_queue_waiting",
    "Tickets waiting in a queue (of the database)",
    ["brand", "queue", "priority"],
    registry=REGISTRY,
)
QUEUE_OLDEST_SECONDS: Final = Gauge(
    "switchyard_queue_oldest_age_seconds",
    "Age of the oldest waiting ticket, 0 when none waits (of the database)",
    ["brand", "queue", "priority"],
    registry=REGISTRY,
)
TICKETS_CLAIMED: Final = Gauge(
    "switchyard_tickets_claimed", "Tickets that agents hold (of the database)", ["brand", "queue"], registry=REGISTRY
)
AGENTS_WORKING: Final = Gauge(
    "switchyard_agents_working",
    "Agents who hold a ticket, or asked for something with a key in the last 15 minutes (of the database)",
    ["service"],
    registry=REGISTRY,
)
CLAIMS: Final = Counter("switchyard_claims", "Tickets claimed", ["brand", "queue", "priority"], registry=REGISTRY)
CLAIM_WAIT_SECONDS: Final = Histogram(
    "switchyard_claim_wait_seconds",
    "How long a claimed ticket had waited in its queue",
    ["queue", "priority"],
    buckets=_RESPONSES,
    registry=REGISTRY,
)
TAKE_BACKS: Final = Counter(
    "switchyard_take_backs", "Tickets taken back from a silent agent", ["brand", "queue"], registry=REGISTRY
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
HTTP_SECONDS: Final = Histogram(
    "switchyard_http_seconds",
    "From the request to the end of its answer, streams and WebSockets left out",
    ["service", "route", "method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
    registry=REGISTRY,
)

# --- the process itself --------------------------------------------------------------------------------------------
NOT_READY: Final = Gauge(
    "switchyard_not_ready",
    "1 while this keeps the service from its work, as /readyz says",
    ["service", "check"],
    registry=REGISTRY,
)
LOG_RECORDS: Final = Counter("switchyard_log_records", "Lines logged", ["service", "level"], registry=REGISTRY)
SPANS: Final = Counter(
    "switchyard_spans",
    "Spans that the collector took (exported), did not take (not_taken), or that found the queue full (queue_full)",
    ["service", "outcome"],
    registry=REGISTRY,
)
CERTIFICATE_EXPIRY: Final = Gauge(
    "switchyard_certificate_expiry_timestamp_seconds",
    "When a certificate that the service shows or trusts ends",
    ["service", "certificate"],
    registry=REGISTRY,
)
BUILD_INFO: Final = Gauge(
    "switchyard_build_info", "1, with the version of Switchyard that runs", ["service", "version"], registry=REGISTRY
)
