"""Web forms: the page, what it keeps and escapes, signatures, and whatever else is posted."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from services.intake.channels.base import Answer, ChannelRequest, NotSent, Refused
from services.intake.channels.web_form import WebForm, WebFormConfig
from tests.support.chat import reply_to

NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
SECRET = "made-up-secret-of-the-brand-s-web-site"
FORM = WebForm("upay", WebFormConfig.model_validate({"secret": SECRET, "public": True}))
URLENCODED = "application/x-www-form-urlencoded"


def asked(**changes: Any) -> ChannelRequest:
    return replace(ChannelRequest("GET", {}, {}, b"", NOW), **changes)


def sent(values: dict[str, str], *, seconds: float = 60, **changes: Any) -> Answer:
    """The page's form, sent so many seconds after the page was asked for."""
    page = FORM.receive(asked()).body
    token = re.search(r'name="token" value="([^"]+)"', page)
    assert token is not None
    body = urlencode({"token": token[1], **values}).encode()
    return FORM.receive(
        asked(
            method="POST",
            headers={"content-type": URLENCODED},
            body=body,
            received_at=NOW + timedelta(seconds=seconds),
            **changes,
        )
    )


def signed(body: bytes, media_type: str = "application/json", **headers: str) -> ChannelRequest:
    seconds = str(int(NOW.timestamp()))
    mac = hmac.new(SECRET.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return asked(
        method="POST",
        headers={"content-type": media_type, "x-switchyard-signature": f"t={seconds},v1={mac}", **headers},
        body=body,
    )


def outcome_of(request: ChannelRequest) -> Answer | Refused:
    try:
        return FORM.receive(request)
    except Refused as refused:
        return refused


def test_the_page_is_a_form_in_the_language_that_is_asked_for() -> None:
    chinese = FORM.receive(asked())
    assert (chinese.status, chinese.media_type, chinese.messages) == (200, "text/html", ())
    assert '<html lang="zh">' in chinese.body
    for request in (asked(query={"lang": "en"}), asked(headers={"accept-language": "en-GB,en;q=0.9"})):
        assert '<html lang="en">' in FORM.receive(request).body
    policy = chinese.headers["Content-Security-Policy"]
    assert "frame-ancestors 'self'" in policy
    style = re.search(r"<style>(.*)</style>", chinese.body, re.DOTALL)
    assert style is not None
    digest = hashlib.sha256(style[1].encode()).digest()
    assert re.search(r"style-src 'sha256-([^']+)'", policy) is not None
    assert f"'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert "<script" not in chinese.body


def test_each_page_has_a_token_of_its_own() -> None:
    tokens = {re.findall(r'name="token" value="([^"]+)"', FORM.receive(asked()).body)[0] for _ in range(3)}
    assert len(tokens) == 3


def test_a_sent_form_is_a_message_and_says_that_a_confirmation_comes() -> None:
    values = {"email": "Han@example.com", "message": "退款什么时候到？", "category": "refunds", "subject": "退款"}
    answer = sent(values)
    (message,) = answer.messages
    assert (message.customer.id, message.subject) == ("han@example.com", "[退款与争议] 退款")
    assert "确认邮件" in answer.body
    assert "手机号码与您联系" in sent({"phone": "13800138000", "message": "x"}).body


def test_the_same_form_twice_is_one_message() -> None:
    page = FORM.receive(asked()).body
    token = re.findall(r'name="token" value="([^"]+)"', page)[0]
    body = urlencode({"token": token, "email": "a@example.com", "message": "x"}).encode()
    request = asked(
        method="POST", headers={"content-type": URLENCODED}, body=body, received_at=NOW + timedelta(seconds=5)
    )
    first, again = FORM.receive(request), FORM.receive(replace(request, received_at=NOW + timedelta(seconds=9)))
    assert first.messages[0].message_id == again.messages[0].message_id


@pytest.mark.parametrize(
    ("values", "faults"),
    [
        ({"message": "x"}, ["请填写邮箱或手机号码，以便我们回复您。"]),
        ({"message": "x", "email": "a@b", "phone": "12"}, ["请填写有效的邮箱地址", "请填写有效的手机号码"]),
        ({"email": "a@example.com"}, ["请描述您的问题。"]),
    ],
)
def test_what_is_wrong_is_told_and_what_was_typed_is_kept(values: dict[str, str], faults: list[str]) -> None:
    name = '"><script>alert(1)</script>'
    answer = sent({"name": name, "category": "refunds", **values})
    assert (answer.status, answer.messages, answer.ignored) == (422, (), ("invalid",))
    for fault in faults:
        assert fault in answer.body
    assert "<script" not in answer.body
    assert name in unescape(answer.body)
    assert 'value="refunds" selected' in answer.body
    for value in values.values():
        assert value in answer.body


@pytest.mark.parametrize(
    ("seconds", "outcome"), [(1.5, ("too_soon",)), (2.5, ()), (7100, ()), (7300, ("expired",)), (-10, ("too_soon",))]
)
def test_a_page_is_good_for_a_while(seconds: float, outcome: tuple[str, ...]) -> None:
    answer = sent({"email": "a@example.com", "message": "别弄丢我"}, seconds=seconds)
    assert answer.ignored == outcome
    assert bool(answer.messages) is not bool(outcome)
    assert not outcome or "别弄丢我" in answer.body


def test_an_expired_page_comes_back_with_a_token_that_is_good() -> None:
    answer = sent({"email": "a@example.com", "message": "hello"}, seconds=8000)
    token = re.findall(r'name="token" value="([^"]+)"', answer.body)[0]
    body = urlencode({"token": token, "email": "a@example.com", "message": "hello"}).encode()
    later = NOW + timedelta(seconds=8010)
    request = asked(method="POST", headers={"content-type": URLENCODED}, body=body, received_at=later)
    assert FORM.receive(request).messages


def test_a_form_that_is_not_public_has_no_page() -> None:
    closed = WebForm("upay", WebFormConfig.model_validate({"secret": SECRET}))
    with pytest.raises(Refused) as refused:
        closed.receive(asked())
    assert refused.value.status == 405
    with pytest.raises(Refused) as refused:
        closed.receive(
            asked(method="POST", headers={"content-type": URLENCODED}, body=b"email=a@example.com&message=x")
        )
    assert (refused.value.status, refused.value.reason) == (401, "signature")
    assert closed.receive(signed(b'{"email": "a@example.com", "message": "x"}')).messages


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"email": "a@example.com"}, ["message"]),
        ({"message": "x"}, ["email", "phone"]),
        ({"message": "x", "email": "a@example.com, b@example.com"}, ["email"]),
        ({"message": "x", "email": "a@example.com\r\nBcc: b@example.com"}, ["email"]),
        ({"message": "x", "phone": "1"}, ["phone"]),
        ({"message": "x", "phone": "13800138000", "attachment_url": "javascript:alert(1)"}, ["attachment_url"]),
        ({"message": "x", "phone": "13800138000", "submission_id": "i" * 151}, ["submission_id"]),
    ],
)
def test_a_signed_form_that_is_wrong_names_the_fields(content: dict[str, str], names: list[str]) -> None:
    with pytest.raises(Refused) as refused:
        FORM.receive(signed(json.dumps(content).encode()))
    assert (refused.value.status, refused.value.reason) == (422, "invalid")
    assert all(name in refused.value.detail for name in names)


def test_a_long_message_is_cut_and_keeps_its_order_number() -> None:
    content = {"email": "a@example.com", "message": "长" * 20_100, "order_no": "A-1", "subject": "s" * 600}
    message = FORM.receive(signed(json.dumps(content).encode())).messages[0]
    assert len(message.text) == 20_000
    assert message.text.endswith("…\n订单号：A-1")
    assert message.subject is not None
    assert (len(message.subject), message.subject[-1]) == (500, "…")


def test_unescaped_bytes_in_a_form_are_read() -> None:
    body = "email=a@example.com&message=没到账".encode("gbk")
    message = FORM.receive(signed(body, f"{URLENCODED}; charset=gbk")).messages[0]
    assert message.text == "没到账"


@settings(deadline=None)
@given(
    st.binary(max_size=300), st.sampled_from([URLENCODED, "application/json", "multipart/form-data; boundary=b", "x"])
)
def test_any_signed_bytes_are_answered_or_refused(body: bytes, media_type: str) -> None:
    outcome = outcome_of(signed(body, media_type))
    assert outcome.messages if isinstance(outcome, Answer) else outcome.status in (400, 415, 422)


_PART = st.tuples(
    st.sampled_from(["email", "message", "phone", "attachment_url", "lang", "subject"]), st.text(max_size=40)
)


@settings(deadline=None)
@given(st.lists(_PART, max_size=6), st.binary(max_size=20))
def test_any_multipart_is_answered_or_refused(parts: list[tuple[str, str]], junk: bytes) -> None:
    body = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="' + name.encode() + b'"\r\n\r\n' + value.encode() + b"\r\n"
        for name, value in parts
    )
    outcome = outcome_of(signed(body + b"--b--\r\n" + junk, "multipart/form-data; boundary=b"))
    assert len(outcome.messages) == 1 if isinstance(outcome, Answer) else outcome.status in (400, 422)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=12) | st.sampled_from(["token", "email", "message"]), st.text(max_size=60)))
def test_anything_typed_into_the_page_is_escaped(values: dict[str, str]) -> None:
    body = urlencode({name: value.encode("utf-8", "replace") for name, value in values.items()}).encode()
    answer = FORM.receive(asked(method="POST", headers={"content-type": URLENCODED}, body=body))
    assert answer.messages == ()
    assert answer.body.count("<form") <= 1


@settings(deadline=None)
@given(st.text(max_size=80))
def test_any_signature_is_refused(signature: str) -> None:
    with pytest.raises(Refused) as refused:
        FORM.receive(asked(method="POST", headers={"x-switchyard-signature": signature}, body=b"{}"))
    assert refused.value.status == 401


async def test_forms_are_answered_by_mail() -> None:
    async def call(_: Any) -> Any:
        raise AssertionError("nothing is called")

    with pytest.raises(NotSent) as by_mail:
        await FORM.send(reply_to("a@example.com", "x", reply_to="a@example.com"), call)
    assert "mail_channels" in by_mail.value.detail
    assert not by_mail.value.hopeless
    with pytest.raises(NotSent) as by_phone:
        await FORM.send(reply_to("+8613800138000", "x", reply_to="+8613800138000"), call)
    assert by_phone.value.hopeless


@pytest.mark.parametrize("wrong", [{"secret": "short"}, {"secret": SECRET, "region": "China"}])
def test_a_config_that_is_wrong_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        WebFormConfig.model_validate(wrong)
