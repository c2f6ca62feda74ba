"""WeChat: what recorded cases cannot say: modes of configuration, hostile XML, replies."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from services.intake.calls import Caller
from services.intake.channels.base import Answer, ChannelRequest, NotSent, Refused, Reply, Sent
from services.intake.channels.wechat import WeChat, WeChatConfig
from shared.taxonomy import Language
from tests.support.providers import wechat as provider
from tests.support.providers.wechat import WeChatApi
from tests.support.server import serving

SENT_AT = 1795147200
NOW = datetime.fromtimestamp(SENT_AT + 3, UTC)
HEAD = (
    f"<ToUserName>gh_1</ToUserName><FromUserName>{provider.CUSTOMER}</FromUserName><CreateTime>{SENT_AT}</CreateTime>"
)
TEXT = f"<xml>{HEAD}<MsgType>text</MsgType><Content>你好</Content><MsgId>1</MsgId></xml>".encode()


def adapter(**config: Any) -> WeChat:
    return WeChat("upay", WeChatConfig.model_validate(provider.CONFIG | config))


def plain(body: bytes, **query: str) -> ChannelRequest:
    return ChannelRequest("POST", provider.query(SENT_AT) | query, {}, body, NOW)


def in_aes(message: bytes, app_id: str = provider.APP_ID) -> ChannelRequest:
    query, body = provider.encrypted(provider.framed(message, app_id), SENT_AT)
    return ChannelRequest("POST", query, {}, body, NOW)


@contextmanager
def refused(status: int, reason: str) -> Iterator[None]:
    with pytest.raises(Refused) as caught:
        yield
    assert (caught.value.status, caught.value.reason) == (status, reason)


# --- configuration -------------------------------------------------------------------------------------------------


def test_the_sample_that_wechat_publishes_is_decrypted() -> None:
    # From its documentation of message encryption: secrets, time and message are its own, nothing is of our making.
    sealed = (
        "hyzAe4OzmOMbd6TvGdIOO6uBmdJoD0Fk53REIHvxYtJlE2B655HuD0m8KUePWB3+LrPXo87wzQ1QLvbeUgmBM4x6F8PGHQHFVAFmOD2LdJF9FrXp"
        "bUAh0B5GIItb52sn896wVsMSHGuPE328HnRGBcrS7C41IzDWyWNlZkyyXwon8T332jisa+h6tEDYsVticbSnyU8dKOIbgU6ux5VTjg3yt+WGzjlp"
        "Kn6NPhRjpA912xMezR4kw6KWwMrCVKSVCZciVGCgavjIQ6X8tCOp3yZbGpy0VxpAe+77TszTfRd5RJSVO/HTnifJpXgCSUdUue1v6h0EIBYYI1BD"
        "1DlD+C0CR8e6OewpusjZ4uBl9FyJvnhvQl+q5rv1ixrcpCumEPo5MJSgM9ehVsNPfUM669WuMyVWQLCzpu9GhglF2PE="
    )
    signed = {
        "signature": "16120ec1b8dbb870f510d87ce6bc2463eae6ca1a",
        "timestamp": "1409735669",
        "nonce": "1320562132",
        "encrypt_type": "aes",
        "msg_signature": "5d197aaffba7e9b25a30732f161a50dee96bd5fa",
    }
    body = f"<xml><ToUserName>gh_10f6c3c3ac5a</ToUserName><Encrypt>{sealed}</Encrypt></xml>".encode()
    received_at = datetime.fromtimestamp(1409735670, UTC)

    answer = adapter(token="spamtest", app_id="wx2c2769f8efd9abc2").receive(
        ChannelRequest("POST", signed, {}, body, received_at)
    )

    (message,) = answer.messages
    assert (message.message_id, message.text) == ("6054768590064713728", "abcdteT")
    assert message.customer.id == "oyORnuP8q7ou2gfYjqLzSIWZf0rs"
    assert message.sent_at == datetime.fromtimestamp(1409735668, UTC)


@pytest.mark.parametrize(
    "config",
    [
        {"encoding_aes_key": "too-short"},
        {"encoding_aes_key": "!" * 43},
        {"encoding_aes_key": None, "require_aes": True},
        {"token": ""},
    ],
)
def test_a_configuration_that_cannot_work_is_told_without_its_secrets(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        adapter(**config)
    assert "too-short" not in str(caught.value)
    assert provider.APP_SECRET not in str(caught.value)


def test_with_require_aes_a_message_in_clear_is_refused() -> None:
    assert adapter(require_aes=True).receive(in_aes(TEXT)).messages[0].text == "你好"
    with refused(401, "signature"):
        adapter(require_aes=True).receive(plain(TEXT))


def test_without_a_key_compatible_mode_is_read_in_clear_and_aes_mode_says_what_is_missing() -> None:
    without_key = adapter(encoding_aes_key=None)
    assert without_key.receive(plain(TEXT, encrypt_type="aes")).messages[0].text == "你好"
    with refused(422, "invalid"):
        without_key.receive(in_aes(TEXT))


def test_the_same_request_twice_is_the_same_message() -> None:
    one, other = adapter().receive(plain(TEXT)), adapter().receive(in_aes(TEXT))
    assert one.messages == other.messages
    assert one.messages[0].event_id == adapter().receive(plain(TEXT)).messages[0].event_id


def test_a_signed_address_is_fresh_for_ten_minutes() -> None:
    for seconds, is_fresh in ((-600, True), (-601, False), (600, True), (601, False)):
        request = ChannelRequest(
            "POST", provider.query(SENT_AT), {}, TEXT, datetime.fromtimestamp(SENT_AT + seconds, UTC)
        )
        if is_fresh:
            assert adapter().receive(request).messages
        else:
            with refused(401, "stale"):
                adapter().receive(request)


@pytest.mark.parametrize("timestamp", ["", "now", "179514720", "-1795147200", "１７９５１４７２００"])
def test_a_signed_time_that_is_none_is_refused(timestamp: str) -> None:
    query = {"timestamp": timestamp, "nonce": "1", "signature": provider.signature(provider.TOKEN, timestamp, "1")}
    with refused(400, "malformed"):
        adapter().receive(ChannelRequest("POST", query, {}, TEXT, NOW))


def test_a_handshake_without_its_echo_is_refused() -> None:
    with refused(400, "malformed"):
        adapter().receive(ChannelRequest("GET", provider.query(SENT_AT), {}, b"", NOW))


@pytest.mark.parametrize("padding", [b"", b"\x00", b"\x01\x02", b"!" * 33, b"\x02\x03\x03"])
def test_what_is_not_padded_as_documented_is_refused(padding: bytes) -> None:
    # The message is as long as it needs to be for the padding to fill the last block.
    length = -len(provider.framed(TEXT) + padding) % 32
    message = TEXT.replace(b"</xml>", b" " * length + b"</xml>")
    query, body = provider.encrypted(provider.framed(message), SENT_AT, padding)
    with refused(401, "signature"):
        adapter().receive(ChannelRequest("POST", query, {}, body, NOW))


def test_a_text_that_is_too_long_is_cut_and_says_so() -> None:
    message = TEXT.replace("你好".encode(), b"a" * 20_001)
    text = adapter().receive(plain(message)).messages[0].text
    assert len(text) == 20_000
    assert text.endswith("a…")


@pytest.mark.parametrize("shown", ["javascript:alert(1)", "https://a.example/" + "x" * 500, ""])
def test_an_address_that_is_none_gives_way_to_the_media_id(shown: str) -> None:
    message = (
        f"<xml>{HEAD}<MsgType>image</MsgType><PicUrl>{shown}</PicUrl><MediaId>a&amp;b</MediaId><MsgId>1</MsgId></xml>"
    )
    (attachment,) = adapter().receive(plain(message.encode())).messages[0].attachments
    assert attachment.url == "https://api.weixin.qq.com/cgi-bin/media/get?media_id=a%26b"


def test_a_file_whose_address_would_be_too_long_is_told_without_one() -> None:
    message = f"<xml>{HEAD}<MsgType>video</MsgType><MediaId>{'x' * 500}</MediaId><MsgId>1</MsgId></xml>"
    (attachment,) = adapter().receive(plain(message.encode())).messages[0].attachments
    assert (attachment.name, attachment.url) == ("video.mp4", None)


# --- hostile content -----------------------------------------------------------------------------------------------

LAUGHS = (
    '<!DOCTYPE lolz [<!ENTITY lol "lol">'
    + "".join(f'<!ENTITY lol{n} "{f"&lol{n - 1 or str()};" * 10}">' for n in range(1, 10))
    + "]>"
)
BOMBS = {
    "billion laughs": f"{LAUGHS}<xml><Content>&lol9;</Content></xml>",
    "quadratic blow-up": f'<!DOCTYPE bomb [<!ENTITY a "{"a" * 50_000}">]><xml><Url>{"&a;" * 40_000}</Url></xml>',
    "external entity": '<!DOCTYPE xml [<!ENTITY e SYSTEM "file:///etc/passwd">]><xml><Content>&e;</Content></xml>',
    "external document type": '<!DOCTYPE xml SYSTEM "http://127.0.0.1:9/x.dtd">' + TEXT.decode(),
    "parameter entity": '<!DOCTYPE xml [<!ENTITY % e SYSTEM "http://127.0.0.1:9/x.dtd">%e;]>' + TEXT.decode(),
    "document type alone": "<!DOCTYPE xml>" + TEXT.decode(),
    "undefined entity": "<xml><Content>&nothing;</Content></xml>",
    "encoding of nobody": '<?xml version="1.0" encoding="klingon"?>' + TEXT.decode(),
    "encoding of several bytes": '<?xml version="1.0" encoding="gb18030"?>' + TEXT.decode(),
    "namespace bomb": "<xml " + " ".join(f'xmlns:n{n}="u"' for n in range(9_000)) + "><MsgType/></xml>",
    "attribute twice": '<xml a="1" a="2"/>',
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_bombs_are_refused_at_once_in_clear_and_encrypted(bomb: str) -> None:
    begun = time.process_time()
    for request in (plain(bomb.encode()), in_aes(bomb.encode())):
        with refused(400, "malformed"):
            adapter().receive(request)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("depth", [1, 100, 10_000, 37_000])
def test_nesting_of_any_depth_is_read_or_refused(depth: int) -> None:
    with refused(400, "malformed"):
        adapter().receive(plain(b"<a>" * depth))
    # What is inside of what is no field of ours is not looked at.
    nested = b"<a>" * depth + b"</a>" * depth
    answer = adapter().receive(plain(TEXT.replace(b"</xml>", nested + b"</xml>")))
    assert answer.messages[0].text == "你好"


@pytest.mark.parametrize("body", [b"<xml>" + b"a" * 262_144, b"{" + b" " * 262_144, b"\xff" * 10_000_000])
def test_huge_bodies_are_not_read(body: bytes) -> None:
    with refused(413, "malformed"):
        adapter().receive(plain(body))


def outcome(request: ChannelRequest) -> Answer | Refused:
    """Fails the test when it is anything else."""
    try:
        return adapter().receive(request)
    except Refused as refusal:
        return refusal


def is_sound(found: Answer | Refused) -> bool:
    return isinstance(found, Refused) or (found.status == 200 and found.body == "success")


values = st.text(max_size=40) | st.sampled_from(["1", str(SENT_AT), "text", "image", "event", "\ud800", "9" * 30])
FIELDS = [
    *("ToUserName", "FromUserName", "CreateTime", "MsgType", "MsgId", "Content", "PicUrl", "MediaId", "Format"),
    *("Recognition", "Label", "Location_X", "Title", "Description", "Url", "FileTotalLen", "Event"),
]
KINDS = ["text", "image", "voice", "video", "shortvideo", "location", "link", "file", "event", "other"]


@settings(deadline=None)
@given(st.binary(max_size=300))
@example(TEXT)
def test_any_bytes_are_answered_or_refused(body: bytes) -> None:
    for request in (plain(body), in_aes(body), plain(body, encrypt_type="aes")):
        assert is_sound(outcome(request))


@settings(deadline=None)
@given(st.binary(max_size=120))
@example(b"")
@example(b"\x00" * 20)
@example(b"\xff" * 20 + provider.APP_ID.encode())
def test_anything_that_is_encrypted_is_answered_or_refused(content: bytes) -> None:
    query, body = provider.encrypted(content, SENT_AT)
    assert is_sound(outcome(ChannelRequest("POST", query, {}, body, NOW)))


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="]<"), max_size=100))
@example("A" * 64)
@example("AAAA")
def test_anything_signed_in_place_of_what_is_encrypted_is_refused(sealed: str) -> None:
    query, body = provider.sealed_request(sealed, SENT_AT)
    assert isinstance(outcome(ChannelRequest("POST", query, {}, body, NOW)), Refused)


@settings(deadline=None)
@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), values | st.integers() | st.lists(values)))
def test_any_fields_are_answered_or_refused(kind: str, fields: dict[str, Any]) -> None:
    said = {"MsgType": kind, "FromUserName": "o1", "CreateTime": SENT_AT, "MsgId": 1} | fields
    found = outcome(plain(json.dumps(said).encode()))
    assert is_sound(found)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["signature", "timestamp", "nonce", "echostr", "msg_signature"]), values))
@example({"signature": "\udc80"})
def test_an_address_that_is_not_signed_is_refused(query: dict[str, str]) -> None:
    for method in ("GET", "POST"):
        with refused(401, "signature"):
            adapter().receive(ChannelRequest(method, query, {}, TEXT, NOW))


# --- replies -------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Sending:
    """An adapter, and the WeChat that it talks to."""

    def __init__(self, url: str, api: WeChatApi, caller: Caller, **config: Any) -> None:
        self.api = api
        self.clock = Clock()
        self._caller = caller
        self._adapter = WeChat(
            "upay", WeChatConfig.model_validate(provider.CONFIG | {"api_url": url} | config), self.clock
        )

    async def send(self, text: str, number: int = 1, customer_id: str = provider.CUSTOMER) -> Sent:
        reply = Reply(UUID(int=number), None, customer_id, None, text, Language.ZH, is_acknowledgement=False, at=NOW)
        return await self._adapter.send(reply, self._caller)


@asynccontextmanager
async def sending(**config: Any) -> AsyncIterator[Sending]:
    api = WeChatApi()
    caller = Caller(timeout_seconds=10)
    async with serving(api.app) as url:
        try:
            yield Sending(url, api, caller, **config)
        finally:
            await caller.close()


@asynccontextmanager
async def not_sent(
    *, hopeless: bool, code: int | None = None, retry_after: float | None = None, why: str = ""
) -> AsyncIterator[None]:
    with pytest.raises(NotSent) as caught:
        yield
    assert caught.value.hopeless == hopeless
    assert caught.value.retry_after_seconds == retry_after
    assert code is None or f"WeChat {code}:" in caught.value.detail
    assert why in caught.value.detail
    assert provider.APP_SECRET not in caught.value.detail


async def test_a_reply_arrives_as_it_was_written() -> None:
    async with sending() as wechat:
        assert await wechat.send('您好！"充值" 已到账 😀\n\\u4f60') == Sent()
        assert wechat.api.texts == ['您好！"充值" 已到账 😀\n\\u4f60']


async def test_a_token_is_fetched_once_and_again_five_minutes_before_its_end() -> None:
    async with sending() as wechat:
        for seconds in (0, 6899, 1):
            wechat.clock.seconds += seconds
            await wechat.send("你好")
        assert wechat.api.tokens_asked == [False, False]
        assert wechat.api.texts == ["你好"] * 3


async def test_a_token_that_somebody_else_replaced_is_fetched_again() -> None:
    async with sending() as wechat:
        await wechat.send("一")
        wechat.api.token = "token-2"
        await wechat.send("二")
        assert wechat.api.texts == ["一", "二"]
        assert wechat.api.tokens_asked == [False, False]


@pytest.mark.parametrize("code", [40001, 40014, 42001])
async def test_a_refused_token_is_replaced_once(code: int) -> None:
    async with sending() as wechat:
        wechat.api.codes = [code]
        await wechat.send("你好")
        assert wechat.api.texts == ["你好"]
        assert wechat.api.tokens_asked == [False, False, True]  # the same was given out, so another one is forced

        wechat.api.codes = [code, code]
        async with not_sent(hopeless=False, code=code):
            await wechat.send("你好", 2)
        assert wechat.api.texts == ["你好"]


@pytest.mark.parametrize("code", [40003, 43004, 43019, 45015, 45047, 48002])
async def test_what_the_customer_cannot_be_sent_is_given_up(code: int) -> None:
    async with sending() as wechat:
        wechat.api.codes = [code]
        async with not_sent(hopeless=True, code=code):
            await wechat.send("你好")


@pytest.mark.parametrize(
    ("code", "retry_after"), [(-1, None), (45009, 3600), (45011, 60), (48001, None), (50002, None), (99999, None)]
)
async def test_what_may_pass_is_tried_again(code: int, retry_after: float | None) -> None:
    async with sending() as wechat:
        wechat.api.codes = [code]
        async with not_sent(hopeless=False, code=code, retry_after=retry_after):
            await wechat.send("你好")
        await wechat.send("你好")
        assert wechat.api.texts == ["你好"]


async def test_a_wrong_secret_is_tried_again_until_somebody_mends_it() -> None:
    async with sending(app_secret="another") as wechat:
        async with not_sent(hopeless=False, code=40125):
            await wechat.send("你好")
        assert wechat.api.texts == []


async def test_a_long_reply_is_parted_and_nothing_of_it_lost() -> None:
    text = "".join(f"第{number}条：请核对您的充值时间、金额和支付方式。" for number in range(1, 81))
    async with sending() as wechat:
        await wechat.send(text)
        assert "".join(wechat.api.texts) == text
        assert len(wechat.api.texts) == -(-len(text.encode()) // 2048)
        assert all(piece.endswith("。") for piece in wechat.api.texts)


async def test_a_try_after_half_a_reply_sends_the_other_half() -> None:
    async with sending() as wechat:
        wechat.api.codes = [0, 0, -1]
        async with not_sent(hopeless=False, code=-1):
            await wechat.send("\n".join(letter * 1500 for letter in "abc"))
        await wechat.send("\n".join(letter * 1500 for letter in "abc"))
        assert wechat.api.texts == [letter * 1500 for letter in "abc"]


async def test_a_reply_that_needs_more_messages_than_wechat_takes_is_given_up_before_any_is_sent() -> None:
    async with sending() as wechat:
        async with not_sent(hopeless=True):
            await wechat.send("a" * (5 * 2048 + 1))
        assert wechat.api.texts == []
        await wechat.send("a" * (5 * 2048))
        assert len(wechat.api.texts) == 5


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (PlainTextResponse('{"errcode": 0, "errmsg": "ok"}', 502), "WeChat answered 502"),
        (PlainTextResponse("OK"), "no errcode"),
        (JSONResponse([]), "no errcode"),
        (JSONResponse({}), "no errcode"),
        (JSONResponse({"errcode": "0"}), "no errcode"),
        (JSONResponse({"access_token": ["token"], "expires_in": 7200}), "no errcode"),
    ],
)
async def test_an_answer_that_does_not_say_so_is_no_delivery(answer: Response, why: str) -> None:
    async with sending() as wechat:
        for asked in ("the token", "the text"):
            wechat.api.answers = [answer]
            async with not_sent(hopeless=False, why=why):
                await wechat.send("你好")
            assert wechat.api.answers == [], asked
            await wechat.send("你好")
        assert len(wechat.api.texts) == 2


async def test_a_server_that_is_down_is_tried_again() -> None:
    caller = Caller(timeout_seconds=2)
    wechat = Sending("http://127.0.0.1:9", WeChatApi(), caller)
    async with not_sent(hopeless=False):
        await wechat.send("你好")
    await caller.close()
