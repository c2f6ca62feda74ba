"""Wiring of the sla_timer: what it consumes and tells, its deadlines, its routes."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from services.sla_timer.firing import Firing
from services.sla_timer.handlers import Handlers
from services.sla_timer.hours import HoursOfWeek
from services.sla_timer.http import build_router
from services.sla_timer.in_force import PoliciesInForce
from services.sla_timer.measures import Measures
from services.sla_timer.outlook import Outlook
from services.sla_timer.settings import Settings
from services.sla_timer.storage import DEADLINES, OUTBOX
from shared import topics
from shared.deadlines import Runner
from shared.outbox import MEASURE_EVERY_SECONDS, Relay
from shared.service import Service

_BATCHES_AT_ONCE = 2  # one is worked on here while the database works on the other
_MEASURE_EVERY_SECONDS = 15.0
_LOOK_AHEAD_EVERY_SECONDS = 60.0
_FORGET_EVERY_SECONDS = 3600.0


def build(settings: Settings | None = None) -> Service:
    """The service, not yet running. Raises ConfigError when the policies cannot be used."""
    settings = settings or Settings()
    service = Service("sla_timer", settings)
    in_force = PoliciesInForce(settings.policy_files, service.database)
    measures = Measures()
    firing = Firing(service.database, in_force, measures)
    handlers = Handlers(service.database, in_force, measures, group="sla_timer.tickets")
    # One loop for all of them: a ticket's message and its routing mostly come in one batch, and are settled once.
    service.subscribe(
        [topics.TICKETS_MESSAGES, topics.TICKETS_ACTIVITY, *topics.QUEUES],
        handlers.on_tickets,
        description="Start, meet, pause, resume and re-plan the ticket's clocks; count it as an arrival.",
    )
    service.announce(topics.SLA_EVENTS)
    service.announce(topics.PEAKS_EVENTS)
    service.announce(topics.DEAD_LETTERS)
    service.tasks["deadlines"] = Runner(service.database, DEADLINES, firing.on_due, at_once=_BATCHES_AT_ONCE).run
    relay = Relay(service.database, OUTBOX, service.publisher, service="sla_timer")
    service.tasks["outbox"] = relay.run
    service.measure(MEASURE_EVERY_SECONDS, "outbox", relay.measure)
    service.tasks["peaks"] = firing.schedule_peaks
    service.tasks["replan"] = firing.start
    service.tasks["policies"] = partial(in_force.watch, settings.sla_timer_reload_seconds, firing.replan)
    service.measure(_MEASURE_EVERY_SECONDS, "clocks", firing.measure)
    outlook = Outlook(service.database, in_force)
    service.measure(_LOOK_AHEAD_EVERY_SECONDS, "forecasts", outlook.forecast, most_of_time=0.01)
    service.measure(_LOOK_AHEAD_EVERY_SECONDS, "outlook", outlook.show_now)
    hours = HoursOfWeek(service.database, in_force)
    # On a small installation at once and often, as in a demo; a large one has it every ten minutes.
    service.measure(_MEASURE_EVERY_SECONDS, "hours of the week", hours.measure, most_of_time=0.01)
    service.every(
        _FORGET_EVERY_SECONDS,
        "forget",
        partial(
            firing.forget,
            timedelta(days=settings.sla_timer_history_days),
            timedelta(days=settings.sla_timer_arrivals_days),
        ),
    )
    service.routers.append(build_router(service.database, settings, in_force))
    return service
