"""Wiring of the desk: what it hears, what it answers, what it does by itself."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from typing import Final

from services.desk import storage
from services.desk.actions import Desk
from services.desk.agents import load_agents
from services.desk.api import build_router
from services.desk.handlers import Handlers
from services.desk.live import LiveQueues
from services.desk.page import build_page
from services.desk.reports import Reports
from services.desk.settings import Settings
from shared import topics
from shared.deadlines import Runner, fire_in_transaction
from shared.http import RateLimiter
from shared.outbox import MEASURE_EVERY_SECONDS, Relay
from shared.service import Service

logger = logging.getLogger(__name__)

NAME: Final = "desk"
_MEASURE_SECONDS: Final = 5.0
_FORGET_SECONDS: Final = 600.0


def build(settings: Settings | None = None) -> Service:
    """The service, not started. Raises ConfigError when the agents' file cannot be used, ValueError for settings that
    contradict one another.
    """
    settings = settings or Settings()
    rules = settings.rules
    directory = load_agents(settings.desk_agents_file, os.environ)
    for agent in directory.without_token:
        logger.warning("agent %s cannot sign in: set %s", agent.id, agent.token_env)

    service = Service(NAME, settings)
    database = service.database
    desk = Desk(database, rules)
    live = LiveQueues(database, settings.desk_refresh_seconds, service.stopping)
    handlers = Handlers(database, rules)

    service.subscribe(
        topics.QUEUES, handlers.on_routed, description="Puts tickets into their queues, with what was decided and why."
    )
    service.subscribe(
        [topics.TICKETS_MESSAGES],
        handlers.on_message,
        description="Keeps what customers wrote; puts a waiting ticket back into its queue, and a resolved one unless "
        "its customer only thanks.",
    )
    service.subscribe(
        [topics.TICKETS_ACTIVITY], handlers.on_activity, description="Takes in what agents did by other tools."
    )
    service.subscribe([topics.SLA_EVENTS], handlers.on_sla, description="Shows due times and breaches.")
    service.subscribe(
        [topics.NOTIFICATIONS_OUTCOMES], handlers.on_outcome, description="Shows whether an answer was delivered."
    )
    service.subscribe([topics.PEAKS_EVENTS], handlers.on_peak, description="Shows which queues are in a peak.")
    service.announce(topics.TICKETS_ACTIVITY)

    limiter = RateLimiter(settings.desk_requests_per_second, settings.desk_requests_burst)
    service.routers += [build_router(database, directory, desk, live, Reports(settings), limiter), build_page()]

    async def forget_requests() -> None:
        async with database.transaction() as connection:
            before = datetime.now(UTC) - timedelta(hours=settings.desk_idempotency_hours)
            await storage.forget_requests(connection, before)

    relay = Relay(database, storage.OUTBOX, service.publisher, service=NAME)
    service.tasks["outbox"] = relay.run
    service.measure(MEASURE_EVERY_SECONDS, "outbox", relay.measure)
    service.tasks["take_back"] = Runner(
        database,
        storage.DEADLINES,
        fire_in_transaction(database, storage.DEADLINES, desk.take_back, service=NAME),
    ).run
    service.measure(_MEASURE_SECONDS, "queues", live.measure)
    service.every(_FORGET_SECONDS, "forget_requests", forget_requests)
    return service
