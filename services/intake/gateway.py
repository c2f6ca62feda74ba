"""Gateways: what providers send to `/v1/channels/<provider>/<brand>`, and replies on their way back by `/v1/replies`.

A provider is answered once its messages are stored, with the events they become, in one transaction. What is not
stored is answered with an error, so that the provider sends it again; message ids make that harmless.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response

from services.intake.acceptance import Acceptance, arrived
from services.intake.brands import Adapters
from services.intake.channels.base import ChannelRequest, Refused
from services.intake.domain import wrong_sent_at
from services.intake.pressure import Pressure
from shared import metrics
from shared.events import ChannelMessage
from shared.http import Problem, RateLimiter
from shared.labels import brand_label
from shared.taxonomy import Channel

Accept = Callable[[str, Channel, Sequence[ChannelMessage], Sequence[str]], Awaitable[None]]
"""Brand, channel, messages, kinds of events that are none: returns once all messages are stored.

Raises a Problem (503 while Kafka is away, 429 when a sender is too fast), or what a failing database raises.
"""

_LIMITED_BY_SENDER: Final = frozenset({Channel.EMAIL, Channel.APP_CHAT, Channel.WEB_FORM})
"""Channels whose customers reach us themselves, and can be asked to wait. A provider's batch holds messages of many
customers, and what one does must not hold up the others: there, floods are folded."""
_IN_A_THREAD_FROM_BYTES: Final = 64 * 1024
_MOST_PER_TRANSACTION: Final = 500


class Intake:
    """The one way of channels' messages into tickets, however they arrive at this process."""

    def __init__(
        self,
        acceptance: Acceptance,
        pressure: Pressure,
        sender_limiter: RateLimiter,
        message_oldest: timedelta | None,
    ) -> None:
        self._acceptance = acceptance
        self._pressure = pressure
        self._sender_limiter = sender_limiter
        self._message_oldest = message_oldest

    async def accept(
        self, brand: str, channel: Channel, messages: Sequence[ChannelMessage], ignored: Sequence[str]
    ) -> None:
        """See `Accept`."""
        now = datetime.now(UTC)
        if messages:
            self._pressure.check()
        if channel in _LIMITED_BY_SENDER:
            for message in messages:
                self._sender_limiter.check(f"{brand}/{channel}/{message.customer.id}")
        kept = []
        for message in (_in_time(message, now) for message in messages):
            if wrong_sent_at(message.sent_at, now, self._message_oldest) is None:
                kept.append(message)
            else:
                ignored = (*ignored, "too_old")
        incoming = arrived(kept)
        for start in range(0, len(incoming), _MOST_PER_TRANSACTION):
            part = incoming[start : start + _MOST_PER_TRANSACTION]
            await self._acceptance.accept(part, into_outbox=True)
        for kind in ignored:
            metrics.CHANNEL_EVENTS_IGNORED.labels(brand_label(brand), channel, kind).inc()


def _in_time(message: ChannelMessage, now: datetime) -> ChannelMessage:
    """A provider's clock that is out of its mind must not lose a message: then it was sent when it came."""
    return message if wrong_sent_at(message.sent_at, now, None) is None else message.model_copy(update={"sent_at": now})


def build_gateway_router(
    intake: Intake,
    adapters: Adapters,
    client_limiter: RateLimiter,
    provider_limiter: RateLimiter,
    public_url: str | None,
) -> APIRouter:
    """Routes of all providers. Each request is authenticated by its adapter, as the provider documents."""
    router = APIRouter(prefix="/v1/channels", tags=["channels"])

    async def receive(
        request: Request,
        provider: Annotated[str, Path(pattern=r"^[a-z_]{1,40}$")],
        brand: Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,39}$")],
    ) -> Response:
        client = request.client.host if request.client else ""
        client_limiter.check(client)
        adapter = adapters.by_provider(provider, brand)
        if adapter is None:
            raise Problem(404, "Not Found", "this brand has no such channel, or its settings are not complete")
        url = f"{public_url.rstrip('/')}{request.url.path}" if public_url else str(request.url.replace(query=""))
        asked = ChannelRequest(
            method=request.method,
            query=_first_of_each(request.query_params.multi_items()),
            headers=_first_of_each(request.headers.items()),
            body=await request.body(),
            received_at=datetime.now(UTC),
            url=url,
            client=client,
        )
        begun = time.monotonic()
        try:
            if len(asked.body) < _IN_A_THREAD_FROM_BYTES:
                answer = adapter.receive(asked)
            else:
                answer = await asyncio.to_thread(adapter.receive, asked)
        except Refused as refused:
            metrics.MESSAGES_REJECTED.labels(provider, refused.reason).inc()
            raise problem_of(refused) from None
        finally:
            metrics.CHANNEL_PARSE_SECONDS.labels(provider).observe(time.monotonic() - begun)
        if answer.messages:
            provider_limiter.check(f"{provider}/{brand}", len(answer.messages))
        await intake.accept(brand, adapter.channel, answer.messages, answer.ignored)
        return Response(answer.body, answer.status, dict(answer.headers), answer.media_type)

    for method, summary in (("GET", "A provider's handshake, or a channel's page"), ("POST", "What a provider sends")):
        router.add_api_route(
            "/{provider}/{brand}",
            receive,
            methods=[method],
            operation_id=f"{method.lower()}_channel",
            summary=summary,
            description="Authenticated as the provider documents; see docs/channels/.",
            responses={
                200: {"description": "What the provider expects", "content": {"text/plain": {}}},
                **dict.fromkeys((400, 401, 403, 404, 405, 413, 422, 429, 503), _PROBLEM),
            },
        )
    return router


_PROBLEM: Final[dict[str, Any]] = {
    "description": "What is wrong, and what to do (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"type": "object"}}},
}


def problem_of(refused: Refused) -> Problem:
    return Problem(refused.status, HTTPStatus(refused.status).phrase, refused.detail)


def _first_of_each(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found
