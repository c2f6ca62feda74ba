"""All SQL of the sla_timer that changes something, in its schema `sla_timer`. Every function works in the caller's
transaction.

Lock order, so that no two replicas wait for each other in a circle: tickets by id, then whatever belongs to them. The
deadline runner comes the other way round (it holds the deadline first), so it never waits for a ticket: `lock_free`.
"""

from __future__ import annotations

from services.sla_timer.storage.arrivals import (
    Arrival,
    active_peaks,
    add_arrivals,
    arrivals_by_hour,
    count_arrivals,
    first_arrivals,
    first_responses_by_hour,
    forget_arrivals,
    save_peak,
)
from services.sla_timer.storage.clocks import (
    OpenClocks,
    clocks_of,
    count_open,
    next_alarms,
    next_due,
    open_clocks,
    ringing_clocks,
    save_clocks,
    save_rung,
)
from services.sla_timer.storage.policies import (
    InForce,
    add_calendars,
    add_policies,
    archived_calendars,
    latest_policies,
    lock_history,
)
from services.sla_timer.storage.tables import DEADLINES, DEADLINES_TABLE, METADATA, OUTBOX, OUTBOX_TABLE, SCHEMA
from services.sla_timer.storage.tickets import (
    FORGET_AT_ONCE,
    Facts,
    Kept,
    add_happenings,
    forget_tickets,
    happenings_of,
    lock,
    lock_free,
    lock_outdated,
    save_tickets,
)
from services.sla_timer.storage.traces import save_traces, traces_of

__all__ = [
    "DEADLINES",
    "DEADLINES_TABLE",
    "FORGET_AT_ONCE",
    "METADATA",
    "OUTBOX",
    "OUTBOX_TABLE",
    "SCHEMA",
    "Arrival",
    "Facts",
    "InForce",
    "Kept",
    "OpenClocks",
    "active_peaks",
    "add_arrivals",
    "add_calendars",
    "add_happenings",
    "add_policies",
    "archived_calendars",
    "arrivals_by_hour",
    "clocks_of",
    "count_arrivals",
    "count_open",
    "first_arrivals",
    "first_responses_by_hour",
    "forget_arrivals",
    "forget_tickets",
    "happenings_of",
    "latest_policies",
    "lock",
    "lock_free",
    "lock_history",
    "lock_outdated",
    "next_alarms",
    "next_due",
    "open_clocks",
    "ringing_clocks",
    "save_clocks",
    "save_peak",
    "save_rung",
    "save_tickets",
    "save_traces",
    "traces_of",
]
