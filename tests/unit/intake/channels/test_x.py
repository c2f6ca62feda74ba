"""X: what recorded cases cannot say: hostile events, replies, errors of its API."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.intake.calls import Caller
from services.intake.channels.base import Answer, ChannelRequest, NotSent, Refused, Reply, Sent
from services.intake.channels.x import X, XConfig
from shared.events.channel import MAX_TEXT_CHARACTERS
from shared.taxonomy import Language
from tests.channels import cases
from tests.support.hostile import damaged, json_values
from tests.support.providers.x import ACCOUNT, CONFIG, CUSTOMER, Failure, XApi, signed
from tests.support.server import serving

NOW = datetime(2026, 11, 20, 4, 0, 3, tzinfo=UTC)
RECORDED: list[Any] = [
    json.loads(named.case.request.body)
    for named in cases.load("x")
    if named.case.request.body and named.case.expect.refused is None
]


def adapter(**config: Any) -> X:
    return X("upay", XConfig.model_validate(CONFIG | config))


def received(body: bytes) -> Answer:
    return adapter().receive(ChannelRequest("POST", {}, signed(body), body, NOW))


def direct_message(text: str, **more: Any) -> bytes:
    message = {"target": {"recipient_id": ACCOUNT}, "sender_id": CUSTOMER, "message_data": {"text": text, **more}}
    event = {"type": "message_create", "id": "1", "created_timestamp": "1795147200123", "message_create": message}
    return json.dumps({"for_user_id": ACCOUNT, "direct_message_events": [event]}).encode()


# --- what comes in ---------------------------------------------------------------------------------------------------


@given(content=damaged(RECORDED) | json_values)
def test_whatever_is_sent_is_answered_or_refused(content: Any) -> None:
    body = json.dumps(content).encode()
    try:
        answer = received(body)
    except Refused:
        assert not isinstance(content, dict)
    else:
        assert answer.status == 200


@given(body=st.binary())
def test_whatever_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(Refused, match="400 malformed"):
        received(b"]" + body)


@given(body=st.binary(), signature=st.text())
def test_no_other_signature_is_accepted(body: bytes, signature: str) -> None:
    with pytest.raises(Refused, match="401 signature"):
        adapter().receive(ChannelRequest("POST", {}, {"x-twitter-webhooks-signature": signature}, body, NOW))


@pytest.mark.parametrize("content", RECORDED)
def test_the_same_delivery_twice_has_the_same_ids(content: Any) -> None:
    body = json.dumps(content).encode()
    assert [one.event_id for one in received(body).messages] == [one.event_id for one in received(body).messages]


def test_a_text_that_is_too_long_is_cut_and_says_so() -> None:
    (message,) = received(direct_message("好" * (MAX_TEXT_CHARACTERS + 1))).messages
    assert message.text == "好" * (MAX_TEXT_CHARACTERS - 1) + "…"


def test_half_a_surrogate_pair_does_not_lose_the_message() -> None:
    (message,) = received(direct_message("\ud83d钱没到")).messages
    assert message.text == "\ufffd钱没到"


def test_many_short_links_take_no_time() -> None:
    urls = [{"url": f"https://t.co/{n}", "expanded_url": "https://a.example"} for n in range(5000)]
    content = direct_message("https://t.co/a " * 1000, entities={"urls": urls})
    begun = time.process_time()  # of this process: other work on the machine does not count
    assert received(content).messages
    assert time.process_time() - begun < 3


# --- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{"account_id": "upay_help"}, {"consumer_key": None}, {"api_url": "api.x.com"}])
def test_a_configuration_that_cannot_work_is_told_without_its_secrets(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        adapter(**config)
    assert not any(secret in str(caught.value) for name, secret in CONFIG.items() if name != "account_id")


# --- replies ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def api(**config: Any) -> AsyncIterator[tuple[X, XApi, Caller]]:
    provider = XApi()
    async with serving(provider.app) as url:
        caller = Caller(timeout_seconds=5)
        try:
            yield adapter(api_url=f"{url}/", **config), provider, caller
        finally:
            await caller.close()


def reply(text: str = "您的钱已退回。", *, to: str | None = f"dm:{CUSTOMER}", customer: str = CUSTOMER) -> Reply:
    return Reply(
        notification_id=UUID("0190b5a4-0000-7000-8000-000000000001"),
        ticket_id=None,
        customer_id=customer,
        reply_to=to,
        text=text,
        language=Language.ZH,
        is_acknowledgement=False,
        at=NOW,
    )


@pytest.mark.parametrize("config", [{}, {"access_token_secret": None}], ids=["oauth1", "bearer"])
async def test_a_direct_message_is_answered_by_one(config: dict[str, Any]) -> None:
    async with api(**config) as (x, provider, caller):
        assert await x.send(reply(), caller) == Sent(("7001",))
    assert provider.messages == [(CUSTOMER, "您的钱已退回。")]


async def test_a_long_direct_message_goes_in_pieces() -> None:
    async with api() as (x, provider, caller):
        await x.send(reply("好" * 10_001), caller)
    assert [text for _, text in provider.messages] == ["好" * 10_000, "好"]


async def test_a_mention_is_answered_in_public_by_a_thread() -> None:
    # A sentence of 15 characters weighs 30: nine of them are 270, ten would be 300.
    text = "".join(f"请您在应用里点开帮助第{n:02}条。" for n in range(12))
    async with api() as (x, provider, caller):
        assert await x.send(reply(text, to="post:42"), caller) == Sent(("9001", "9002"))
    assert [answered for answered, _ in provider.posts] == ["42", "9001"]
    assert "".join(post for _, post in provider.posts) == text
    assert all(post.endswith("。") for _, post in provider.posts)


async def test_a_mention_is_answered_in_private_where_the_brand_wants_it() -> None:
    async with api(answer_mentions="dm") as (x, provider, caller):
        await x.send(reply(to="post:42"), caller)
    assert (provider.messages, provider.posts) == ([(CUSTOMER, "您的钱已退回。")], [])


async def test_a_thread_that_broke_off_is_gone_on_with() -> None:
    # X refuses words that it has already: beginning anew would fail for ever.
    first, second = "一" * 139 + "。", "二" * 100
    async with api() as (x, provider, caller):
        provider.failures = [None, Failure(503, {"title": "Service Unavailable"})]
        with pytest.raises(NotSent) as failed:
            await x.send(reply(first + second, to="post:42"), caller)
        assert not failed.value.hopeless
        assert await x.send(reply(first + second, to="post:42"), caller) == Sent(("9001", "9002"))
    assert provider.posts == [("42", first), ("9001", second)]


PROBLEMS = "https://api.x.com/2/problems"


@pytest.mark.parametrize(
    ("status", "body", "hopeless", "detail"),
    [
        (403, {"errors": [{"code": 349, "message": "You cannot send messages to this user."}]}, True, "403 (349)"),
        (403, {"errors": [{"code": 150, "message": "not following you"}]}, True, "403 (150)"),
        (403, {"detail": "duplicate content", "type": "about:blank"}, True, "403"),
        (403, {"type": f"{PROBLEMS}/oauth1-permissions"}, False, "403 (oauth1-permissions)"),
        (403, {"errors": [{"code": 326, "message": "locked"}]}, False, "403 (326)"),
        (404, {"type": f"{PROBLEMS}/resource-not-found"}, True, "404 (resource-not-found)"),
        (400, {"type": f"{PROBLEMS}/invalid-request", "detail": "您的钱已退回。"}, True, "400 (invalid-request)"),
        (401, {"title": "Unauthorized", "type": "about:blank"}, False, "401"),
        (402, {"type": f"{PROBLEMS}/credits"}, False, "402 (credits)"),
        (500, "no JSON object", False, "500"),
        (503, {"errors": [{"code": "x"}, 7], "type": 5}, False, "503"),
    ],
)
async def test_what_x_refuses_is_given_up_or_tried_again(
    status: int, body: object, hopeless: bool, detail: str
) -> None:
    async with api() as (x, provider, caller):
        provider.failures = [Failure(status, body)]
        with pytest.raises(NotSent) as failed:
            await x.send(reply(), caller)
    assert (failed.value.hopeless, failed.value.detail) == (hopeless, f"X answered {detail}")
    assert failed.value.retry_after_seconds is None


async def test_a_limit_says_when_it_ends() -> None:
    async with api() as (x, provider, caller):
        provider.failures = [Failure(429, {}, {"x-rate-limit-reset": str(int(time.time()) + 600)})]
        with pytest.raises(NotSent) as failed:
            await x.send(reply(), caller)
    assert not failed.value.hopeless
    assert failed.value.retry_after_seconds == pytest.approx(600, abs=10)


async def test_wrong_keys_are_not_the_end() -> None:
    async with api(access_token_secret="another") as (x, provider, caller):
        with pytest.raises(NotSent) as failed:
            await x.send(reply(), caller)
    assert (failed.value.hopeless, failed.value.detail) == (False, "X answered 401 (unauthorized)")
    assert provider.messages == []


@pytest.mark.parametrize("to", [None, "", "mail@example.com", "dm:../../2/tweets", "post:", "dm:1 "])
async def test_an_address_that_is_none_is_given_up(to: str | None) -> None:
    async with api() as (x, provider, caller):
        with pytest.raises(NotSent) as failed:
            await x.send(reply(to=to), caller)
    assert failed.value.hopeless
    assert (provider.messages, provider.posts) == ([], [])


async def test_a_customer_without_a_users_id_gets_no_private_answer() -> None:
    async with api(answer_mentions="dm") as (x, _, caller):
        with pytest.raises(NotSent) as failed:
            await x.send(reply(to="post:42", customer="someone/else"), caller)
    assert (failed.value.hopeless, failed.value.detail) == (True, "the customer's id is no user of X")
