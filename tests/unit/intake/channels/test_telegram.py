"""Telegram: what recorded cases cannot say: hostile updates, replies, errors of its API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.intake.attachments import safe
from services.intake.calls import Caller
from services.intake.channels.base import Answer, ChannelRequest, NotSent, Refused, Reply, Sent
from services.intake.channels.telegram import Telegram, TelegramConfig
from shared.events.channel import MAX_TEXT_CHARACTERS
from shared.taxonomy import Language
from tests.channels import cases
from tests.support.hostile import damaged, json_values
from tests.support.providers.telegram import BOT_TOKEN, CHAT, CONFIG, CONNECTION, SECRET_TOKEN, TelegramApi
from tests.support.server import serving

NOW = datetime(2026, 11, 20, 4, 0, 3, tzinfo=UTC)
RECORDED: list[Any] = [
    json.loads(named.case.request.body)
    for named in cases.load("telegram")
    if named.case.request.body and named.case.expect.refused is None
]


def adapter(**config: Any) -> Telegram:
    return Telegram("upay", TelegramConfig.model_validate(CONFIG | config))


def received(body: bytes, secret: str = SECRET_TOKEN) -> Answer:
    return adapter().receive(ChannelRequest("POST", {}, {"x-telegram-bot-api-secret-token": secret}, body, NOW))


def update(**message: Any) -> bytes:
    sender = {"id": CHAT, "is_bot": False, "first_name": "Lei"}
    whole = {"message_id": 1, "from": sender, "chat": {"id": CHAT, "type": "private"}, "date": 1795147200, **message}
    return json.dumps({"update_id": 1, "message": whole}).encode()


# --- what comes in ---------------------------------------------------------------------------------------------------


@given(content=damaged(RECORDED) | json_values)
def test_whatever_is_sent_is_answered_or_refused(content: Any) -> None:
    try:
        answer = received(json.dumps(content).encode())
    except Refused:
        assert not isinstance(content, dict)
    else:
        assert answer.status == 200
        assert answer.messages or answer.ignored or "deleted_business_messages" in content


@given(body=st.binary())
def test_whatever_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(Refused, match="400 malformed"):
        received(b"]" + body)


@given(body=st.binary(), secret=st.text().filter(lambda secret: secret != SECRET_TOKEN))
def test_no_other_secret_is_accepted(body: bytes, secret: str) -> None:
    with pytest.raises(Refused, match="401 signature"):
        received(body, secret)


@pytest.mark.parametrize("content", RECORDED)
def test_the_same_update_twice_has_the_same_ids(content: Any) -> None:
    body = json.dumps(content).encode()
    assert [one.event_id for one in received(body).messages] == [one.event_id for one in received(body).messages]


def test_a_chat_with_the_bot_and_one_with_the_business_account_do_not_mix() -> None:
    # Telegram counts their messages apart, so that both have a message 1 of the same chat id.
    (with_bot,) = received(update(text="a")).messages
    (with_business,) = received(update(text="a", business_connection_id=CONNECTION)).messages
    assert with_bot.event_id != with_business.event_id
    assert with_bot.conversation_id != with_business.conversation_id


def test_a_text_that_is_too_long_is_cut_and_says_so() -> None:
    (message,) = received(update(text="好" * (MAX_TEXT_CHARACTERS + 1))).messages
    assert message.text == "好" * (MAX_TEXT_CHARACTERS - 1) + "…"


def test_half_a_surrogate_pair_does_not_lose_the_message() -> None:
    (message,) = received(update(text="\ud83d钱没到")).messages
    assert message.text == "\ufffd钱没到"


@pytest.mark.parametrize("message_id", [True, 1.5, "", "a\nb", [1], None])
def test_what_is_no_id_is_none(message_id: object) -> None:
    assert received(update(text="a", message_id=message_id)).ignored == ("malformed",)


def test_an_agent_is_shown_the_reference_to_a_file() -> None:
    (message,) = received(update(voice={"file_id": "AwACAgUAAxkBAAMrVoice-_", "duration": 1})).messages
    assert safe(message.attachments[0]).url == "telegram+media:AwACAgUAAxkBAAMrVoice-_"


@pytest.mark.parametrize("user_id", [None, True, "830145267", CHAT + 1])
def test_a_number_is_the_customers_only_where_telegram_says_so(user_id: object) -> None:
    contact = {"phone_number": "+8613800138000", "first_name": "Lei", "user_id": user_id}
    (message,) = received(update(contact=contact)).messages
    assert (message.customer.phone, message.verified) == (None, ())


def test_a_configuration_that_cannot_work_is_told_without_its_secrets() -> None:
    with pytest.raises(ValidationError) as caught:
        adapter(secret_token="", api_url="api.telegram.org")
    assert caught.value.error_count() == 2
    assert BOT_TOKEN not in str(caught.value)


# --- replies ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def api(**config: Any) -> AsyncIterator[tuple[Telegram, TelegramApi, Caller]]:
    provider = TelegramApi()
    async with serving(provider.app) as url:
        caller = Caller(timeout_seconds=5)
        try:
            yield adapter(api_url=f"{url}/", **config), provider, caller
        finally:
            await caller.close()


def reply(text: str = "您的钱已退回。", *, to: str | None = str(CHAT)) -> Reply:
    return Reply(
        notification_id=UUID("0190b5a4-0000-7000-8000-000000000001"),
        ticket_id=None,
        customer_id=str(CHAT),
        reply_to=to,
        text=text,
        language=Language.ZH,
        is_acknowledgement=False,
        at=NOW,
    )


@pytest.mark.parametrize("to", [str(CHAT), None])
async def test_a_reply_goes_to_the_chat(to: str | None) -> None:
    async with api() as (telegram, provider, caller):
        assert await telegram.send(reply(to=to), caller) == Sent((f"{CHAT}/501",))
    assert provider.taken == [{"chat_id": CHAT, "text": "您的钱已退回。"}]


async def test_a_reply_goes_by_the_business_account_that_was_written_to() -> None:
    (message,) = received(update(text="在吗", business_connection_id=CONNECTION)).messages
    async with api() as (telegram, provider, caller):
        sent = await telegram.send(reply(to=message.reply_to), caller)
    assert provider.taken == [{"chat_id": CHAT, "text": "您的钱已退回。", "business_connection_id": CONNECTION}]
    # A customer's answer names the message by the same id.
    answer = received(update(text="好", business_connection_id=CONNECTION, reply_to_message={"message_id": 501}))
    assert answer.messages[0].in_reply_to == sent.message_ids


async def test_a_long_reply_goes_in_pieces_and_on_after_a_failure() -> None:
    text = "😀" * 2048 + "\n" + "好" * 100
    async with api() as (telegram, provider, caller):
        provider.failures = [None, (502, "Bad Gateway", {})]
        with pytest.raises(NotSent) as failed:
            await telegram.send(reply(text), caller)
        assert not failed.value.hopeless
        assert await telegram.send(reply(text), caller) == Sent((f"{CHAT}/501", f"{CHAT}/502"))
    assert [taken["text"] for taken in provider.taken] == ["😀" * 2048, "好" * 100]


@pytest.mark.parametrize(
    ("status", "description", "hopeless", "detail"),
    [
        (403, "Forbidden: bot was blocked by the user", True, "403 (bot was blocked by the user)"),
        (403, "Forbidden: user is deactivated", True, "403 (user is deactivated)"),
        (400, "Bad Request: chat not found", True, "400 (chat not found)"),
        (400, "Bad Request: can't parse entities: 您的钱", True, "400"),
        (401, "Unauthorized", False, "401"),
        (404, "Not Found", False, "404"),
        (500, "Internal Server Error", False, "500"),
    ],
)
async def test_what_telegram_refuses_is_given_up_or_tried_again(
    status: int, description: str, hopeless: bool, detail: str
) -> None:
    async with api() as (telegram, provider, caller):
        provider.failures = [(status, description, {})]
        with pytest.raises(NotSent) as failed:
            await telegram.send(reply(), caller)
    assert (failed.value.hopeless, failed.value.detail) == (hopeless, f"Telegram answered {detail}")
    assert failed.value.retry_after_seconds is None


@pytest.mark.parametrize(("told", "waits"), [(35, 35), (-1, 0), (10**300, 86_400)])
async def test_a_limit_says_when_it_ends(told: int, waits: float) -> None:
    async with api() as (telegram, provider, caller):
        provider.failures = [(429, f"Too Many Requests: retry after {told}", {"retry_after": told})]
        with pytest.raises(NotSent) as failed:
            await telegram.send(reply(), caller)
    assert (failed.value.hopeless, failed.value.retry_after_seconds) == (False, waits)


async def test_the_bots_token_is_in_no_error() -> None:
    wrong = "100200300:another-token"
    async with api(bot_token=wrong) as (telegram, _, caller):
        with pytest.raises(NotSent) as failed:
            await telegram.send(reply(), caller)
    assert (failed.value.hopeless, failed.value.detail) == (False, "Telegram answered 401")
    caller = Caller(timeout_seconds=5)
    try:
        with pytest.raises(NotSent) as unreached:
            await adapter(bot_token=wrong, api_url="http://127.0.0.1:1").send(reply(), caller)
    finally:
        await caller.close()
    assert wrong not in str(unreached.value)


@pytest.mark.parametrize("to", ["mail@example.com", "business:830145267", "business:a/b:1", "1/../2", "1 "])
async def test_an_address_that_is_none_is_given_up(to: str) -> None:
    async with api() as (telegram, provider, caller):
        with pytest.raises(NotSent) as failed:
            await telegram.send(reply(to=to), caller)
    assert failed.value.hopeless
    assert provider.taken == []
