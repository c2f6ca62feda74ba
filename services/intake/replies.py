"""Replies on their way back: the notifier's webhook in, the provider's API out, each reply once.

The notifier tries for days (docs/notifications.md); one of its tries is one of ours. A reply is claimed in
`intake.replies` first, so that two tries at a time are one, and remembered there once the provider has it: a try whose
answer got lost does not send it twice. What a process that dies has sent without remembering is sent again.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from sqlalchemy import Column, DateTime, Index, Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Uuid as UuidType
from sqlmodel import Field as Column_
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from services.intake.channels.base import NotSent, Reply, Sent
from services.intake.storage import Base
from shared import metrics, tracing
from shared.cloudevents import describe
from shared.database import Database
from shared.events.base import BrandCode
from shared.http import Problem, unauthorized, unavailable
from shared.labels import brand_label
from shared.taxonomy import Channel, Language
from shared.trace_context import about, current

Send = Callable[[Reply], Awaitable[Sent]]
"""Hands a reply to the provider of its brand and channel. Raises NotSent."""

LEASE: Final = timedelta(seconds=60)
"""How long one try may take; after it, the process that took it is taken for dead."""
KEPT: Final = timedelta(days=30)
"""How long the ids of a reply are kept: a customer may answer it as long."""
_PROBLEM: Final[dict[str, Any]] = {
    "description": "What is wrong, and what to do (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"type": "object"}}},
}


class ReplyRow(Base, table=True):
    """A reply that a provider has, or is being handed (`sent_at` is none, and only until `leased_until`)."""

    __tablename__ = "replies"
    __table_args__ = (
        Index("ix_replies_message_ids", "message_ids", postgresql_using="gin"),
        Index("ix_replies_leased_until", "leased_until"),
        {"schema": "intake"},
    )

    notification_id: uuid.UUID = Column_(primary_key=True)
    brand: str = Column_(sa_type=Text)
    channel: str = Column_(sa_type=Text)
    ticket_id: uuid.UUID | None = None
    leased_until: datetime = Column_(sa_column=Column(DateTime(timezone=True), nullable=False))
    sent_at: datetime | None = Column_(sa_column=Column(DateTime(timezone=True), nullable=True))
    # The provider's ids of it: a customer's message may say that it answers one.
    message_ids: list[str] = Column_(sa_column=Column(ARRAY(Text, dimensions=1), nullable=False))


class Data(BaseModel):
    """What is needed of a notification's data."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    notification_id: uuid.UUID
    ticket_id: uuid.UUID | None = None
    brand: BrandCode
    channel: Channel
    customer_id: Annotated[str, Field(min_length=1, max_length=200)]
    reply_to: Annotated[str, Field(max_length=500)] | None = None
    language: Language = Language.OTHER
    text: Annotated[str, Field(min_length=1, max_length=100_000)]


class Payload(BaseModel):
    """A webhook's body (Standard Webhooks 1.0). Only what is for customers comes here."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    type: Literal["notification.acknowledgement", "notification.reply"]
    timestamp: datetime
    data: Data


@dataclass(frozen=True, slots=True)
class Claim:
    """`taken`: it is ours to send. Else it `was_sent`, or another try is at it."""

    taken: bool
    was_sent: bool


class Replies:
    """Sends each reply once, by the sender of its brand and channel."""

    def __init__(self, database: Database, senders: Mapping[tuple[str, Channel], Send]) -> None:
        self._database = database
        self._senders = senders

    async def send(self, payload: Payload) -> None:
        """Returns once the provider has it. Raises a Problem: 422 when it never will, 503 when another try may do."""
        data = payload.data
        sender = self._senders.get((data.brand, data.channel))
        if sender is None:
            raise unavailable(f"no adapter for {data.channel} of {data.brand} is configured; see deploy/config/brands")
        claim = await self._claim(data)
        if claim.was_sent:
            return
        if not claim.taken:
            raise unavailable("another try is under way")
        try:
            # The context stays here: providers are told nothing of our traces.
            with tracing.span(f"send reply by {data.channel}", current(), "client", _traced(data)) as span:
                try:
                    sent = await sender(_reply_of(payload))
                except NotSent as failed:
                    span.set({"switchyard.reply.hopeless": failed.hopeless})
                    raise
        except NotSent as failed:
            await self._let_go(data.notification_id)
            outcome = "hopeless" if failed.hopeless else "try_again"
            metrics.CHANNEL_REPLIES.labels(brand_label(data.brand), data.channel, outcome).inc()
            raise _problem_of(failed) from None
        except BaseException:
            await self._let_go(data.notification_id)
            raise
        await self._remember(data.notification_id, sent)
        metrics.CHANNEL_REPLIES.labels(brand_label(data.brand), data.channel, "sent").inc()

    async def _claim(self, data: Data) -> Claim:
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            taken = await connection.scalar(
                _CLAIM,
                {
                    "notification_id": data.notification_id,
                    "brand": data.brand,
                    "channel": data.channel,
                    "ticket_id": data.ticket_id,
                    "now": now,
                    "until": now + LEASE,
                },
            )
            if taken is not None:
                return Claim(taken=True, was_sent=False)
            was_sent = await connection.scalar(_WAS_SENT, {"notification_id": data.notification_id})
        return Claim(taken=False, was_sent=bool(was_sent))

    async def _let_go(self, notification_id: uuid.UUID) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(_LET_GO, {"notification_id": notification_id})

    async def _remember(self, notification_id: uuid.UUID, sent: Sent) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(
                _REMEMBER,
                {
                    "notification_id": notification_id,
                    "now": datetime.now(UTC),
                    "message_ids": [message_id[:200] for message_id in sent.message_ids],
                },
            )

    async def forget_old(self) -> None:
        """Delete what is past `KEPT`: the notifier has given up long before."""
        async with self._database.transaction() as connection:
            await connection.execute(_FORGET, {"before": datetime.now(UTC) - KEPT})


_TIME: Final = DateTime(timezone=True)
_CLAIM: Final = text(
    """
    INSERT INTO intake.replies (notification_id, brand, channel, ticket_id, leased_until, message_ids)
    VALUES (:notification_id, :brand, :channel, :ticket_id, :until, '{}')
    ON CONFLICT (notification_id) DO UPDATE SET leased_until = excluded.leased_until
        WHERE replies.sent_at IS NULL AND replies.leased_until <= :now
    RETURNING notification_id
    """
).bindparams(
    bindparam("notification_id", type_=UuidType()),
    bindparam("ticket_id", type_=UuidType()),
    bindparam("now", type_=_TIME),
    bindparam("until", type_=_TIME),
)
_WAS_SENT: Final = text(
    "SELECT sent_at IS NOT NULL FROM intake.replies WHERE notification_id = :notification_id"
).bindparams(bindparam("notification_id", type_=UuidType()))
_LET_GO: Final = text(
    "DELETE FROM intake.replies WHERE notification_id = :notification_id AND sent_at IS NULL"
).bindparams(bindparam("notification_id", type_=UuidType()))
_REMEMBER: Final = text(
    "UPDATE intake.replies SET sent_at = :now, message_ids = :message_ids WHERE notification_id = :notification_id"
).bindparams(
    bindparam("notification_id", type_=UuidType()),
    bindparam("now", type_=_TIME),
    bindparam("message_ids", type_=ARRAY(Text(), dimensions=1)),
)
_FORGET: Final = text("DELETE FROM intake.replies WHERE leased_until < :before").bindparams(
    bindparam("before", type_=_TIME)
)


def _traced(data: Data) -> tracing.Attributes:
    return {
        tracing.TICKET: str(data.ticket_id) if data.ticket_id else None,
        tracing.BRAND: data.brand,
        tracing.CHANNEL: data.channel,
        "switchyard.notification.id": str(data.notification_id),
    }


def _reply_of(payload: Payload) -> Reply:
    data = payload.data
    return Reply(
        notification_id=data.notification_id,
        ticket_id=data.ticket_id,
        customer_id=data.customer_id,
        reply_to=data.reply_to,
        text=data.text,
        language=data.language,
        is_acknowledgement=payload.type == "notification.acknowledgement",
        at=payload.timestamp,
    )


def _problem_of(failed: NotSent) -> Problem:
    if failed.hopeless:
        return Problem(422, "Unprocessable Content", failed.detail)
    problem = unavailable(failed.detail)
    if failed.retry_after_seconds is not None:
        problem.headers["Retry-After"] = str(max(1, round(failed.retry_after_seconds)))
    return problem


def build_replies_router(replies: Replies, secrets: Sequence[SecretStr]) -> APIRouter:
    """`POST /v1/replies/<brand>`, signed as Standard Webhooks 1.0 has it, by any of `secrets`."""
    router = APIRouter(prefix="/v1/replies", tags=["replies"])
    webhooks = [Webhook(secret.get_secret_value()) for secret in secrets]

    def verified(body: bytes, headers: Mapping[str, str]) -> bool:
        for webhook in webhooks:
            try:
                webhook.verify(body, dict(headers), json_parse=False)
            except (WebhookVerificationError, ValueError, OverflowError):  # the library trips over odd headers
                continue
            return True
        return False

    @router.post(
        "/{brand}",
        status_code=204,
        summary="Send a reply back by the channel that its ticket came by",
        description="The notifier's webhook (Standard Webhooks 1.0). 204 once the provider has it, or had it before.",
        responses=dict.fromkeys((401, 413, 422, 503), _PROBLEM),
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
        },
    )
    async def reply(request: Request, brand: Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,39}$")]) -> Response:
        body = await request.body()
        if not verified(body, request.headers):
            raise unauthorized("the signature is missing or wrong; see INTAKE_REPLIES_SECRET")
        try:
            payload = Payload.model_validate(json.loads(body))
        except (ValueError, RecursionError) as error:
            detail = describe(error) if isinstance(error, ValidationError) else "the body is not JSON"
            raise Problem(422, "Invalid reply", detail) from None
        if payload.data.brand != brand:
            raise Problem(422, "Invalid reply", "data.brand: is not the brand of the address")
        with about(current(), payload.data.ticket_id):
            await replies.send(payload)
        return Response(status_code=204)

    return router
