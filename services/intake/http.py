"""`POST /v1/messages`: messages over HTTP, one or a list, idempotent by brand, channel and message id."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from services.intake.acceptance import Acceptance, Status, arrived
from services.intake.domain import wrong_sent_at
from services.intake.keys import KeyRing, Sender
from services.intake.pressure import Pressure
from shared import metrics
from shared.events import ChannelMessage
from shared.http import Problem, RateLimiter, bearer_token, field_errors, forbidden, unauthorized

MOST_MESSAGES: Final = 500
_MOST_ERRORS: Final = 100
_ONE: Final = TypeAdapter(ChannelMessage)
_SEVERAL: Final = TypeAdapter(Annotated[list[ChannelMessage], Field(min_length=1, max_length=MOST_MESSAGES)])


class Result(BaseModel):
    """What became of one message. The ticket is the same however often the message is sent."""

    message_id: str
    ticket_id: UUID | None = Field(description="none of what was taken back before it came")
    status: Literal["accepted", "duplicate"]


class Results(BaseModel):
    """One result per message, in their order."""

    results: list[Result]


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A JSON Schema without `$ref`, so that it can stand anywhere in the OpenAPI document."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    return {key: _inlined(value, definitions) for key, value in schema.items() if key != "$defs"}


def _schema(adapter: TypeAdapter[Any]) -> Any:
    schema = adapter.json_schema()
    return _inlined(schema, schema.get("$defs", {}))


_REQUEST_BODY: Final = {
    "required": True,
    "content": {"application/json": {"schema": {"anyOf": [_schema(_ONE), _schema(_SEVERAL)]}}},
}
_PROBLEM: Final[dict[str, Any]] = {
    "description": "What is wrong, and what to do (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"type": "object"}}},
}


def build_router(
    acceptance: Acceptance, keys: KeyRing, limiter: RateLimiter, pressure: Pressure, message_oldest: timedelta | None
) -> APIRouter:
    """Routes under /v1. Every one needs an API key."""
    router = APIRouter(prefix="/v1", tags=["messages"])

    @router.post(
        "/messages",
        status_code=202,
        response_model=Result | Results,
        responses=dict.fromkeys((401, 403, 413, 415, 422, 429, 503), _PROBLEM),
        openapi_extra={"requestBody": _REQUEST_BODY},
        summary="Send one message, or a list of up to 500",
        description="Idempotent: a message that was sent before is answered with its ticket and `duplicate`. All "
        "messages of a list are stored, or none.",
    )
    async def send_messages(request: Request) -> Response:
        sender = keys.sender_of(bearer_token(request))
        if sender is None:
            raise _refused("unauthorized", unauthorized("this API key is not known here; see deploy/config/brands/"))
        limiter.check(sender.name)
        pressure.check()
        body = await _json_body(request)
        is_list = body.lstrip()[:1] == b"["
        messages = _parse(body, is_list=is_list)
        limiter.check(sender.name, len(messages) - 1)
        _check(messages, sender, is_list=is_list, oldest=message_oldest)
        outcomes = await acceptance.accept(arrived(messages), into_outbox=True)
        results = [
            Result(
                message_id=outcome.incoming.message.message_id,
                ticket_id=outcome.ticket_id,
                status="accepted" if outcome.status is Status.NEW else "duplicate",
            )
            for outcome in outcomes
        ]
        answer: BaseModel = Results(results=results) if is_list else results[0]
        return Response(answer.model_dump_json(), 202, media_type="application/json")

    return router


async def _json_body(request: Request) -> bytes:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise _refused(
            "media type", Problem(415, "Unsupported Media Type", "send JSON, with `Content-Type: application/json`")
        )
    return await request.body()


def _parse(body: bytes, *, is_list: bool) -> list[ChannelMessage]:
    try:
        return _SEVERAL.validate_json(body) if is_list else [_ONE.validate_json(body)]
    except ValidationError as error:
        raise _invalid(
            field_errors(error.errors(include_url=False, include_context=False, include_input=False))
        ) from None


def _check(messages: Sequence[ChannelMessage], sender: Sender, *, is_list: bool, oldest: timedelta | None) -> None:
    """What the contract cannot say: whose messages the key may send, and which times are accepted."""
    now = datetime.now(UTC)
    forbidden_fields = []
    errors = []
    for position, message in enumerate(messages):
        prefix = f"{position}." if is_list else ""
        if not sender.may_send(message.brand, message.channel):
            forbidden_fields.append(f"{prefix}channel")
        elif why_not := wrong_sent_at(message.sent_at, now, oldest):
            errors.append({"field": f"{prefix}sent_at", "detail": why_not})
    if forbidden_fields:
        detail = "this API key is for another brand or channel"
        problem = forbidden(detail)
        problem.errors = [{"field": field, "detail": detail} for field in forbidden_fields[:_MOST_ERRORS]]
        raise _refused("forbidden", problem)
    if errors:
        raise _invalid(errors)


def _invalid(errors: Sequence[dict[str, str]]) -> Problem:
    fields = ", ".join(item["field"] for item in errors[:5])
    return _refused(
        "invalid", Problem(422, "Invalid message", f"wrong or missing: {fields}", errors=errors[:_MOST_ERRORS])
    )


def _refused(reason: str, problem: Problem) -> Problem:
    metrics.MESSAGES_REJECTED.labels("http", reason).inc()
    return problem
