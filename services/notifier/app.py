"""Wiring only: what the notifier consumes, what it publishes, what it does besides."""

from __future__ import annotations

import logging
import os
from collections import Counter
from datetime import UTC, datetime

from services.notifier import storage
from services.notifier.config import load_outputs, load_texts
from services.notifier.deliverer import Deliverer
from services.notifier.handlers import Handlers, retention_limits
from services.notifier.mail import MailSender
from services.notifier.settings import Settings
from services.notifier.webhook import WebhookSender
from shared import metrics, topics
from shared.events import Output
from shared.outbox import MEASURE_EVERY_SECONDS, Outbox, Relay
from shared.service import Service

logger = logging.getLogger(__name__)

_MEASURE_EVERY_SECONDS = 5.0
_PURGE_EVERY_SECONDS = 3600.0


def build(settings: Settings | None = None) -> Service:
    """The notifier, ready to run. Raises ConfigError when a file of its cannot be used."""
    settings = settings or Settings()
    texts = load_texts()
    outputs = load_outputs(settings.notifier_config_file, settings.brands_directory, os.environ)
    service = Service("notifier", settings)
    database = service.database

    handlers = Handlers(database, settings, texts, outputs)
    service.subscribe(
        [topics.TICKETS_MESSAGES], handlers.on_messages, description="remembers how a ticket's customer is reached"
    )
    service.subscribe(list(topics.QUEUES), handlers.on_routed, description="acknowledges tickets that were opened")
    service.subscribe(
        [topics.TICKETS_ACTIVITY], handlers.on_activity, description="passes agents' replies on to customers"
    )
    service.subscribe(
        [topics.SLA_EVENTS],
        handlers.on_sla_events,
        description="reminds leads of what is or will be late, calls heads and those on call when it stays so",
    )
    service.announce(topics.NOTIFICATIONS_OUTCOMES)

    webhooks = WebhookSender(settings, outputs.endpoints)
    deliverer = Deliverer(
        database,
        settings,
        texts,
        outputs,
        {Output.WEBHOOK: webhooks, Output.MAIL: MailSender(settings, outputs)},
    )

    async def deliver() -> None:
        try:
            await deliverer.run()
        finally:
            await webhooks.close()

    async def measure() -> None:
        async with database.transaction() as connection:
            waiting = Counter(await storage.count_open(connection))
            oldest = await storage.oldest_due(connection, datetime.now(UTC))
            lost = await storage.waiting_for_unknown_endpoints(connection, outputs.endpoint_names)
        for output in (*Output, "none"):
            metrics.NOTIFICATIONS_PENDING.labels(output).set(waiting[output])
        for output in Output:
            metrics.NOTIFICATIONS_OLDEST_SECONDS.labels(output).set(oldest.get(output, 0.0))
        for endpoint, count in lost.items():
            logger.warning(
                "%d notifications wait for endpoint %s, which %s does not name: add it again, or they wait for ever",
                count,
                endpoint,
                settings.notifier_config_file,
            )

    async def purge() -> None:
        while True:
            async with database.transaction() as connection:
                if not await storage.purge(connection, **retention_limits(settings, datetime.now(UTC))):
                    return

    service.tasks["deliverer"] = deliver
    relay = Relay(database, Outbox(storage.SCHEMA), service.publisher, service="notifier")
    service.tasks["outbox"] = relay.run
    service.measure(MEASURE_EVERY_SECONDS, "outbox", relay.measure)
    service.measure(_MEASURE_EVERY_SECONDS, "notifications", measure)
    service.every(_PURGE_EVERY_SECONDS, "purge", purge)
    return service
