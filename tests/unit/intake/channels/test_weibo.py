"""Weibo: what recorded cases cannot say: ids that it does not give, hostile content, replies."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.intake.calls import Caller
from services.intake.channels.base import Answer, ChannelRequest, NotSent, Refused, Reply, Sent
from services.intake.channels.weibo import Weibo, WeiboConfig
from shared.events import ChannelMessage
from shared.taxonomy import Language
from tests.support.providers import weibo as provider
from tests.support.providers.weibo import WeiboApi
from tests.support.server import serving

SENT_AT = 1795147200
NOW = datetime.fromtimestamp(SENT_AT + 3, UTC)
TEXT: dict[str, Any] = {
    "type": "text",
    "receiver_id": 1902538057,
    "sender_id": 2489518277,
    "created_at": "Fri Nov 20 12:00:00 +0800 2026",
    "text": "你好",
    "data": {},
}


def adapter(**config: Any) -> Weibo:
    return Weibo("upay", WeiboConfig.model_validate(provider.CONFIG | config))


def pushed(body: bytes) -> ChannelRequest:
    return ChannelRequest("POST", provider.query(SENT_AT), {}, body, NOW)


def message(**fields: Any) -> ChannelMessage:
    (found,) = adapter().receive(pushed(json.dumps(TEXT | fields).encode())).messages
    return found


@contextmanager
def refused(status: int, reason: str) -> Iterator[None]:
    with pytest.raises(Refused) as caught:
        yield
    assert (caught.value.status, caught.value.reason) == (status, reason)


# --- ids -----------------------------------------------------------------------------------------------------------


def test_a_message_has_the_same_id_each_time_it_is_pushed() -> None:
    again = dict(reversed(TEXT.items()))  # the order of names means nothing in JSON
    assert message().message_id == message(**again).message_id


@pytest.mark.parametrize(
    "other",
    [
        {"sender_id": 2489518278},
        {"created_at": "Fri Nov 20 12:00:01 +0800 2026"},
        {"text": "你好吗"},
        {"type": "image"},
        {"data": {"tovfid": 1}},
    ],
)
def test_messages_of_one_second_that_differ_have_ids_that_differ(other: dict[str, Any]) -> None:
    assert message(**other).message_id != message().message_id


def test_without_an_account_id_all_accounts_of_the_application_are_the_brands() -> None:
    assert message(receiver_id=7).text == message(receiver_id=None).text == "你好"
    answer = adapter(account_id="8").receive(pushed(json.dumps(TEXT | {"receiver_id": 7}).encode()))
    assert (answer.messages, answer.ignored) == ((), ("other_account",))


def test_a_text_that_is_too_long_is_cut_and_says_so() -> None:
    text = message(text="a" * 20_001).text
    assert len(text) == 20_000
    assert text.endswith("a…")


@pytest.mark.parametrize("data", [None, [], "text", {}, {"tovfid": ""}, {"tovfid": True}, {"tovfid": {}}])
def test_a_picture_without_its_id_is_a_message_all_the_same(data: Any) -> None:
    (attachment,) = message(type="image", data=data).attachments
    assert (attachment.name, attachment.url) == ("image.jpg", None)


# --- hostile content -----------------------------------------------------------------------------------------------


def outcome(request: ChannelRequest) -> Answer | Refused:
    """Fails the test when it is anything else."""
    try:
        return adapter().receive(request)
    except Refused as refusal:
        return refusal


def is_sound(found: Answer | Refused) -> bool:
    return isinstance(found, Refused) or (found.status, found.body) == (200, "")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("\ud800")
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner))
kinds = st.sampled_from(["text", "position", "voice", "image", "event", "mention", "comment", "other"])
subtypes = st.sampled_from(["follow", "mention", "mention_comment", "other", 1, None])
data_of_pushes = st.dictionaries(st.sampled_from(["subtype", "tovfid", "longitude", "latitude"]), anything | subtypes)


@settings(deadline=None)
@given(kinds | anything, st.dictionaries(st.sampled_from(list(TEXT)), anything), data_of_pushes | anything)
@example("text", {"created_at": "Mon Jan 01 00:00:00 +1400 0001"}, {})
@example("text", {"created_at": "Fri Dec 31 23:59:59 -1200 9999"}, {})
@example("text", {"created_at": "Fri Nov 20 12:00:00 +9999 2026"}, {})
@example("text", {"sender_id": 10**300}, {})
@example("\ud800", {"text": "\ud800"}, {"subtype": "\ud800"})
def test_any_push_is_answered_or_refused(kind: Any, fields: dict[str, Any], data: Any) -> None:
    body = json.dumps(TEXT | {"data": data} | fields | {"type": kind}).encode()
    assert is_sound(outcome(pushed(body)))


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(b"[" * 100_000)
@example(b'{"type":' * 100_000)
@example(b"1" * 5000)
def test_any_bytes_are_answered_or_refused(body: bytes) -> None:
    assert is_sound(outcome(pushed(body)))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["signature", "timestamp", "nonce", "echostr"]), st.text()))
@example({"signature": "\udc80"})
def test_an_address_that_is_not_signed_is_refused(query: dict[str, str]) -> None:
    for method in ("GET", "POST"):
        with refused(401, "signature"):
            adapter().receive(ChannelRequest(method, query, {}, json.dumps(TEXT).encode(), NOW))


@pytest.mark.parametrize("unit", [1, 1000])
def test_a_signed_address_is_fresh_for_ten_minutes(unit: int) -> None:
    for seconds, is_fresh in ((-600, True), (-601, False), (600, True), (601, False)):
        received_at = datetime.fromtimestamp(SENT_AT + seconds, UTC)
        request = ChannelRequest("POST", provider.query(SENT_AT * unit), {}, json.dumps(TEXT).encode(), received_at)
        if is_fresh:
            assert adapter().receive(request).messages
        else:
            with refused(401, "stale"):
                adapter().receive(request)


# --- replies -------------------------------------------------------------------------------------------------------


class Sending:
    """An adapter, and the Weibo that it talks to."""

    def __init__(self, url: str, api: WeiboApi, caller: Caller, **config: Any) -> None:
        self.api = api
        self._caller = caller
        self._adapter = adapter(api_url=url, **config)

    async def send(self, text: str, customer_id: str = provider.CUSTOMER) -> Sent:
        reply = Reply(UUID(int=1), None, customer_id, None, text, Language.ZH, is_acknowledgement=False, at=NOW)
        return await self._adapter.send(reply, self._caller)


@asynccontextmanager
async def sending(**config: Any) -> AsyncIterator[Sending]:
    api = WeiboApi()
    caller = Caller(timeout_seconds=10)
    async with serving(api.app) as url:
        try:
            yield Sending(url, api, caller, **config)
        finally:
            await caller.close()


@contextmanager
def not_sent(*, hopeless: bool, code: int | None = None, retry_after: float | None = None) -> Iterator[None]:
    with pytest.raises(NotSent) as caught:
        yield
    assert caught.value.hopeless == hopeless
    assert caught.value.retry_after_seconds == retry_after
    assert code is None or f"Weibo {code}:" in caught.value.detail
    assert provider.ACCESS_TOKEN not in caught.value.detail


async def test_a_reply_arrives_as_it_was_written() -> None:
    async with sending() as weibo:
        assert await weibo.send('您好！"充值" & 100% 已到账 😀\n+') == Sent()
        assert weibo.api.texts == ['您好！"充值" & 100% 已到账 😀\n+']


@pytest.mark.parametrize("code", [10013, 20003, 20021, 20301, 20302])
async def test_what_the_customer_cannot_be_sent_is_given_up(code: int) -> None:
    async with sending() as weibo:
        weibo.api.answers = [provider.error(code)]
        with not_sent(hopeless=True, code=code):
            await weibo.send("你好")


@pytest.mark.parametrize(
    ("code", "retry_after"), [(10001, None), (10023, 600), (20308, 600), (21327, None), (99999, None)]
)
async def test_what_may_pass_is_tried_again(code: int, retry_after: float | None) -> None:
    async with sending() as weibo:
        weibo.api.answers = [provider.error(code), JSONResponse({"error_code": code}, 403)]
        for _ in range(2):  # the code as a string, and as a number
            with not_sent(hopeless=False, code=code, retry_after=retry_after):
                await weibo.send("你好")
        await weibo.send("你好")
        assert weibo.api.texts == ["你好"]


@pytest.mark.parametrize(
    "answer",
    [
        PlainTextResponse("gateway down", 502),
        PlainTextResponse("OK"),
        JSONResponse([]),
        JSONResponse({"result": False}),
        JSONResponse({"error_code": [1]}, 500),
    ],
)
async def test_an_answer_that_does_not_say_so_is_no_delivery(answer: Response) -> None:
    async with sending() as weibo:
        weibo.api.answers = [answer]
        with not_sent(hopeless=False):
            await weibo.send("你好")


async def test_a_token_that_has_ended_is_tried_again_until_somebody_renews_it() -> None:
    async with sending(access_token="ended") as weibo:
        with not_sent(hopeless=False, code=21332):
            await weibo.send("你好")


async def test_a_long_reply_is_parted_and_goes_on_where_it_stopped() -> None:
    text = "".join(f"第{number}条：请核对您的充值时间、金额和支付方式。" for number in range(1, 31))
    async with sending() as weibo:
        await weibo.send(text)
        assert len(weibo.api.texts) == 3
        assert "".join(weibo.api.texts) == text

    async with sending() as weibo:
        weibo.api.answers = [JSONResponse({"result": True}), provider.error(10001)]
        with not_sent(hopeless=False, code=10001):
            await weibo.send(text)
        await weibo.send(text)
        assert text.endswith("".join(weibo.api.texts))
        assert len(weibo.api.texts) == 2  # the first piece was taken the first time


async def test_a_reply_that_is_too_long_is_given_up_before_any_is_sent() -> None:
    async with sending() as weibo:
        with not_sent(hopeless=True):
            await weibo.send("a" * (20 * 299 + 1))
        assert weibo.api.texts == []
