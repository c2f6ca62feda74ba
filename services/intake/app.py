"""Wiring of intake: which handler consumes what, which routes there are."""

from __future__ import annotations

import os

from services.intake.acceptance import Acceptance
from services.intake.handlers import Handlers
from services.intake.http import build_router
from services.intake.keys import load_keys
from services.intake.settings import Settings
from shared import topics
from shared.http import RateLimiter
from shared.outbox import Outbox, Relay
from shared.service import Service


def build(settings: Settings | None = None) -> Service:
    """The service, not yet running. Raises ConfigError when the channels file cannot be used."""
    settings = settings or Settings()
    service = Service("intake", settings, body_most_bytes=settings.intake_body_most_bytes)
    outbox = Outbox("intake")
    acceptance = Acceptance(service.database, settings.windows, outbox)
    handlers = Handlers(acceptance, service.publisher, settings.message_oldest)
    service.subscribe(
        [topics.CHANNEL_MESSAGES],
        handlers.on_messages,
        description="Cut secrets, drop duplicates, thread the message into its conversation's ticket, publish it.",
    )
    service.subscribe(
        [topics.TICKETS_ACTIVITY],
        handlers.on_activities,
        description="Resolved tickets end, reopened ones go on.",
    )
    service.announce(topics.TICKETS_MESSAGES)
    service.announce(topics.DEAD_LETTERS)
    service.tasks["outbox"] = Relay(service.database, outbox, service.publisher, service="intake").run
    service.routers.append(
        build_router(
            acceptance,
            load_keys(settings.intake_channels_file, os.environ),
            RateLimiter(settings.intake_rate_per_second, settings.intake_rate_burst),
            settings.message_oldest,
        )
    )
    return service
