"""Wiring of intake: which handler consumes what, which routes there are."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any, Final

from services.intake.acceptance import Acceptance
from services.intake.brands import load_adapters
from services.intake.calls import Caller
from services.intake.channels.app_chat import AppChat
from services.intake.channels.base import Adapter, Call, Reply, Sent
from services.intake.channels.email import EmailAdapter
from services.intake.chat import ChatHub, build_chat_router
from services.intake.floods import Floods
from services.intake.gateway import Intake, build_gateway_router
from services.intake.handlers import Handlers
from services.intake.http import build_router
from services.intake.imap import ImapFetcher
from services.intake.keys import load_keys
from services.intake.pressure import EVERY_SECONDS, Pressure
from services.intake.replies import Replies, Send, build_replies_router
from services.intake.settings import Settings
from services.intake.smtp import SmtpGateway
from services.intake.storage import DEADLINES
from shared import topics
from shared.deadlines import Runner, fire_in_transaction
from shared.http import RateLimiter
from shared.outbox import MEASURE_EVERY_SECONDS, Outbox, Relay
from shared.service import Service
from shared.taxonomy import Channel

_FORGET_EVERY_SECONDS: Final = 3600.0


def build(settings: Settings | None = None) -> Service:
    """The service, not yet running. Raises ConfigError when a brand's file cannot be used."""
    settings = settings or Settings()
    service = Service("intake", settings, body_most_bytes=settings.intake_body_most_bytes)
    outbox = Outbox("intake")
    acceptance = Acceptance(service.database, settings.windows, outbox, settings.flood_limit)
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
    relay = Relay(service.database, outbox, service.publisher, service="intake")
    service.tasks["outbox"] = relay.run
    service.measure(MEASURE_EVERY_SECONDS, "outbox", relay.measure)
    service.tasks["floods"] = Runner(
        service.database,
        DEADLINES,
        fire_in_transaction(service.database, DEADLINES, Floods(outbox).tell, service="intake"),
    ).run
    pressure = Pressure(
        service.broker.ping,
        service.database,
        accept_in_outage_seconds=settings.intake_accept_in_outage_seconds,
        outbox_most=settings.intake_outbox_most,
    )
    service.every(EVERY_SECONDS, "pressure", pressure.measure)
    service.checks["gateways"] = pressure.why_not
    service.routers.append(
        build_router(
            acceptance,
            load_keys(settings.brands_directory, os.environ),
            RateLimiter(settings.intake_rate_per_second, settings.intake_rate_burst),
            pressure,
            settings.message_oldest,
        )
    )
    _add_gateways(service, settings, acceptance, pressure)
    return service


def _add_gateways(service: Service, settings: Settings, acceptance: Acceptance, pressure: Pressure) -> None:
    """What providers reach, and the way back to them."""
    adapters = load_adapters(settings.brands_directory, os.environ)
    intake = Intake(
        acceptance,
        pressure,
        RateLimiter(settings.intake_sender_rate_per_second, settings.intake_sender_rate_burst),
        settings.message_oldest,
    )
    service.routers.append(
        build_gateway_router(
            intake,
            adapters,
            RateLimiter(settings.intake_client_rate_per_second, settings.intake_client_rate_burst),
            RateLimiter(settings.intake_rate_per_second, settings.intake_rate_burst),
            settings.intake_public_url,
        )
    )
    caller = Caller(settings.intake_provider_timeout_seconds)
    service.on_stop(caller.close)
    senders = {key: _sender(adapter, caller) for key, adapter in adapters.by_channel.items()}
    chats = {adapter.brand: adapter for adapter in adapters.by_channel.values() if isinstance(adapter, AppChat)}
    if chats:
        hub = ChatHub(service.database)
        service.tasks["chat"] = hub.run
        service.every(_FORGET_EVERY_SECONDS, "forget chat replies", hub.purge)
        limiter = RateLimiter(settings.intake_visitor_rate_per_second, settings.intake_visitor_rate_burst)
        service.routers.append(build_chat_router(chats, hub, intake.accept, limiter))
        senders |= {(brand, Channel.APP_CHAT): functools.partial(hub.deliver, brand) for brand in chats}
    mail = [adapter for adapter in adapters.by_channel.values() if isinstance(adapter, EmailAdapter)]
    _add_mail(service, settings, intake, mail)
    replies = Replies(service.database, senders)
    service.routers.append(build_replies_router(replies, settings.replies_secrets))
    service.every(_FORGET_EVERY_SECONDS, "forget replies", replies.forget_old)


def _add_mail(service: Service, settings: Settings, intake: Intake, adapters: Sequence[EmailAdapter]) -> None:
    """Mail by SMTP for all brands that have addresses, and from the mailboxes that their files name."""
    if settings.intake_smtp_tls_certificate is not None:
        service.certificates["smtp"] = settings.intake_smtp_tls_certificate
    if settings.intake_smtp_port is not None and adapters:
        service.tasks["smtp"] = SmtpGateway(
            adapters,
            intake.accept,
            host=settings.intake_smtp_host,
            port=settings.intake_smtp_port,
            limiter=RateLimiter(settings.intake_mail_rate_per_second, settings.intake_mail_rate_burst),
            tls=settings.smtp_tls,
            hostname=settings.intake_smtp_hostname,
        ).run
    for adapter in adapters:
        if adapter.config.imap is not None:
            fetcher = ImapFetcher(adapter, intake.accept, poll_seconds=settings.intake_imap_poll_seconds)
            service.tasks[f"imap {adapter.brand}"] = fetcher.run


def _sender(adapter: Adapter[Any], call: Call) -> Send:
    async def send(reply: Reply) -> Sent:
        return await adapter.send(reply, call)

    return send
