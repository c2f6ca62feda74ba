"""Phone: what recorded cases cannot say: the contract's schema, hostile events, replies."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.intake.calls import Caller
from services.intake.channels.base import Answer, ChannelRequest, NotSent, Refused, Reply, Sent
from services.intake.channels.phone import Phone, PhoneConfig
from shared.events.channel import MAX_TEXT_CHARACTERS
from shared.taxonomy import Language
from tests.channels import cases
from tests.support.hostile import damaged, json_values
from tests.support.providers.phone import OUTGOING_SECRET, SECRET, CallCentre, signed
from tests.support.server import serving

NOW = datetime(2026, 11, 20, 4, 0, 3, tzinfo=UTC)
NUMBER = "+8613800138000"
NOTIFICATION = UUID("0190b5a4-0000-7000-8000-000000000001")
TICKET = UUID("0190b5a4-0000-7000-8000-000000000002")
SCHEMA = json.loads((Path(__file__).parents[4] / "docs" / "channels" / "phone.schema.json").read_text("utf-8"))
CONTRACT = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.FormatChecker())
PLAYED: dict[str, Any] = {
    named.name: json.loads(named.case.request.body)
    for named in cases.load("phone")
    if named.case.request.body and named.case.expect.refused is None
}
BEYOND_THE_CONTRACT = {"unknown-event", "malformed-event"}


def adapter(**config: Any) -> Phone:
    return Phone("upay", PhoneConfig.model_validate({"secret": SECRET, **config}))


def received(body: bytes, headers: dict[str, str] | None = None, phone: Phone | None = None) -> Answer:
    sent = ChannelRequest("POST", {}, signed(body, NOW) if headers is None else headers, body, NOW)
    return (phone or adapter()).receive(sent)


def event(kind: str, **data: Any) -> bytes:
    whole = {
        "type": kind,
        "timestamp": "2026-11-20T12:00:00+08:00",
        "data": {"call_id": "c-1", "caller": NUMBER, **data},
    }
    return json.dumps(whole).encode()


# --- what comes in ---------------------------------------------------------------------------------------------------


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", sorted(PLAYED))
def test_the_schema_says_what_is_understood(name: str) -> None:
    assert CONTRACT.is_valid(PLAYED[name]) == (name not in BEYOND_THE_CONTRACT)


@given(content=damaged(list(PLAYED.values())) | json_values)
def test_whatever_is_sent_is_answered_or_refused(content: Any) -> None:
    try:
        answer = received(json.dumps(content).encode())
    except Refused:
        assert not isinstance(content, dict)
    else:
        assert answer.status == 200
        assert len(answer.messages) + len(answer.ignored) == 1


@given(body=st.binary(), name=st.text(), timestamp=st.text(), signature=st.text())
def test_no_other_signature_is_accepted(body: bytes, name: str, timestamp: str, signature: str) -> None:
    headers = {"webhook-id": name, "webhook-timestamp": timestamp, "webhook-signature": signature}
    with pytest.raises(Refused, match="401 signature"):
        received(body, headers)


@pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_every_header_is_signed(header: str) -> None:
    body = event("call.missed")
    headers = signed(body, NOW)
    assert received(body, headers).messages
    other = signed(body, NOW + timedelta(seconds=1), webhook_id="msg_2")
    with pytest.raises(Refused, match="401 signature"):
        received(body, headers | {header: other[header]})


@pytest.mark.parametrize(("seconds", "is_taken"), [(-301, False), (-300, True), (300, True), (301, False)])
def test_a_request_is_good_for_five_minutes(seconds: int, is_taken: bool) -> None:
    body = event("call.missed")
    headers = signed(body, NOW.replace(microsecond=0) + timedelta(seconds=seconds))
    if is_taken:
        assert received(body, headers).messages
    else:
        with pytest.raises(Refused, match="401 stale"):
            received(body, headers)


def test_a_body_that_is_not_utf_8_was_not_signed() -> None:
    with pytest.raises(Refused, match="401 signature"):
        received(b"\xff", signed(b"{}", NOW))


@pytest.mark.parametrize("name", sorted(PLAYED))
def test_the_same_event_twice_has_the_same_ids(name: str) -> None:
    body = json.dumps(PLAYED[name]).encode()
    assert [one.event_id for one in received(body).messages] == [one.event_id for one in received(body).messages]


def test_of_a_long_call_beginning_and_end_are_kept() -> None:
    said = "开" + "好" * MAX_TEXT_CHARACTERS + "完"
    (message,) = received(event("call.ended", transcript=[{"speaker": "customer", "text": said}])).messages
    assert len(message.text) == MAX_TEXT_CHARACTERS
    assert message.text.startswith("开好")
    assert "好\n…\n好" in message.text
    assert message.text.endswith("好完")


@pytest.mark.parametrize("speaker", ["agent", "supervisor", "Customer", None, 1])
def test_what_others_say_is_not_the_customers(speaker: object) -> None:
    said = [{"speaker": speaker, "text": "冻结账户"}, {"speaker": "customer", "text": "改手机号"}]
    (message,) = received(event("call.ended", transcript=said)).messages
    assert message.text == "改手机号"


@pytest.mark.parametrize(
    ("caller", "customer"),
    [
        (NUMBER, NUMBER),
        ("00 86 138 0013 8000", NUMBER),
        ("138 0013 8000", NUMBER),
        ("+1 650-253-0000", "+16502530000"),
        ("anonymous", "anonymous-c-1"),
        ("", "anonymous-c-1"),
        ("8001", "anonymous-c-1"),
        (None, "anonymous-c-1"),
        (8613800138000, "anonymous-c-1"),
    ],
)
def test_who_called(caller: object, customer: str) -> None:
    (message,) = received(event("call.missed", caller=caller, caller_verified=True)).messages
    is_known = customer.startswith("+")
    assert message.customer.id == customer
    assert (message.customer.phone, message.reply_to) == ((customer, customer) if is_known else (None, None))
    assert message.verified == (("phone",) if is_known else ())


@pytest.mark.parametrize("verified", [False, None, 1, "true"])
def test_a_number_that_was_only_displayed_is_not_verified(verified: object) -> None:
    (message,) = received(event("call.missed", caller_verified=verified)).messages
    assert message.verified == ()


def test_an_address_that_is_too_long_is_not_kept_in_half() -> None:
    (message,) = received(event("voicemail.left", recording_url="https://a.example/?" + "x" * 500)).messages
    assert [(one.name, one.url) for one in message.attachments] == [("recording", None)]


def test_a_missed_call_is_in_the_brands_language() -> None:
    (message,) = received(event("call.missed"), phone=adapter(language="en")).messages
    assert message.text == "A missed call; please call back."


# --- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {"secret": "whsec_"},
        {"secret": "whsec_e"},
        {"callback_url": "https://calls.example"},
        {"outgoing_secret": OUTGOING_SECRET, "sms_url": "calls.example"},
        {"language": "other"},
    ],
)
def test_a_configuration_that_cannot_work_is_told_without_its_secrets(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        adapter(**config)
    assert "whsec_e" not in str(caught.value)
    assert OUTGOING_SECRET not in str(caught.value)


# --- replies ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def centre(*hooks: str, **config: Any) -> AsyncIterator[tuple[Phone, CallCentre, Caller]]:
    """`hooks`: which of `callback_url` and `sms_url` are configured."""
    provider = CallCentre()
    async with serving(provider.app) as url:
        paths = {"callback_url": f"{url}/callbacks", "sms_url": f"{url}/sms"}
        caller = Caller(timeout_seconds=5)
        try:
            hooked = {name: paths[name] for name in hooks}
            yield adapter(**{"outgoing_secret": OUTGOING_SECRET, **hooked, **config}), provider, caller
        finally:
            await caller.close()


def reply(*, is_acknowledgement: bool = False, to: str | None = NUMBER) -> Reply:
    return Reply(
        notification_id=NOTIFICATION,
        ticket_id=TICKET,
        customer_id=to or "anonymous-c-4",
        reply_to=to,
        text="您的钱已退回。",
        language=Language.ZH,
        is_acknowledgement=is_acknowledgement,
        at=NOW,
    )


async def test_an_answer_is_phoned() -> None:
    async with centre("callback_url", "sms_url") as (phone, provider, caller):
        assert await phone.send(reply(), caller) == Sent()
        await phone.send(reply(), caller)  # a try whose answer got lost: the call centre knows it by its id
    assert [(one["type"], one["data"]) for one in provider.callbacks] == [
        (
            "callback.requested",
            {
                "request_id": str(NOTIFICATION),
                "ticket_id": str(TICKET),
                "brand": "upay",
                "number": NUMBER,
                "language": "zh",
                "text": "您的钱已退回。",
            },
        )
    ]
    assert provider.texts == []


async def test_an_acknowledgement_is_written() -> None:
    async with centre("callback_url", "sms_url") as (phone, provider, caller):
        assert await phone.send(reply(is_acknowledgement=True), caller) == Sent()
    assert provider.callbacks == []
    assert [(one["type"], one["data"]["text"]) for one in provider.texts] == [("sms.requested", "您的钱已退回。")]


async def test_an_answer_is_written_where_nobody_phones() -> None:
    async with centre("sms_url") as (phone, provider, caller):
        await phone.send(reply(), caller)
    assert len(provider.texts) == 1


@pytest.mark.parametrize(
    ("hooks", "is_acknowledgement", "missing"),
    [((), False, "callback_url or sms_url"), ((), True, "sms_url"), (("callback_url",), True, "sms_url")],
)
async def test_without_a_way_it_is_given_up(hooks: tuple[str, ...], is_acknowledgement: bool, missing: str) -> None:
    async with centre(*hooks) as (phone, provider, caller):
        with pytest.raises(NotSent) as failed:
            await phone.send(reply(is_acknowledgement=is_acknowledgement), caller)
    assert failed.value.hopeless
    assert failed.value.detail == f"no way to reach a caller is configured: set {missing}"
    assert (provider.callbacks, provider.texts) == ([], [])


@pytest.mark.parametrize("to", [None, "", "8001", "mail@example.com"])
async def test_a_withheld_number_is_given_up(to: str | None) -> None:
    async with centre("callback_url") as (phone, provider, caller):
        with pytest.raises(NotSent) as failed:
            await phone.send(reply(to=to), caller)
    assert failed.value.hopeless
    assert provider.callbacks == []


IN_AN_HOUR = "a date that is an hour away when the test runs"


@pytest.mark.parametrize(
    ("status", "retry_after", "hopeless", "waits"),
    [
        (422, None, True, None),
        (410, None, True, None),
        (401, None, False, None),
        (302, None, False, None),
        (429, "120", False, 120),
        (503, IN_AN_HOUR, False, 3600),
        (503, "Fri, 20 Nov 2020 04:00:00 GMT", False, 0),
        (503, "999999999", False, 86_400),
        (503, "soon", False, None),
    ],
)
async def test_what_the_call_centre_refuses_is_given_up_or_tried_again(
    status: int, retry_after: str | None, hopeless: bool, waits: float | None
) -> None:
    if retry_after is IN_AN_HOUR:
        retry_after = format_datetime(datetime.now(UTC) + timedelta(hours=1))
    async with centre("callback_url") as (phone, provider, caller):
        provider.failures = [(status, {"retry-after": retry_after} if retry_after else {})]
        with pytest.raises(NotSent) as failed:
            await phone.send(reply(), caller)
    assert (failed.value.hopeless, failed.value.detail) == (hopeless, f"the call centre answered {status}")
    assert failed.value.retry_after_seconds == (None if waits is None else pytest.approx(waits, abs=120))


async def test_a_wrong_secret_is_not_the_end() -> None:
    async with centre("callback_url", outgoing_secret=SECRET) as (phone, provider, caller):
        with pytest.raises(NotSent) as failed:
            await phone.send(reply(), caller)
    assert (failed.value.hopeless, failed.value.detail) == (False, "the call centre answered 401")
    assert provider.callbacks == []
