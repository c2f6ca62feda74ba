"""What recorded mails cannot say: floods of parts, any bytes, any encoding, and what must not be cut."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.intake.channels import mime
from services.intake.channels.base import Answer, ChannelRequest, NotSent, Refused, Reply
from services.intake.channels.email import EmailAdapter, EmailConfig, Envelope
from services.intake.channels.quoting import Kind, bare_subject, html_text, own_text
from shared.events import ChannelMessage
from shared.taxonomy import Language
from tests.channels import cases

AT = datetime(2026, 11, 20, 4, 0, 3, tzinfo=UTC)
ADAPTER = EmailAdapter("upay", EmailConfig.model_validate(cases.config("email")))
SEEDS = [named.case.request.built().body for named in cases.load("email")]
ANSWER = Kind(is_reply=True, is_forward=False)
FIRST = Kind(is_reply=False, is_forward=False)


def read(raw: bytes | str, envelope: Envelope | None = None) -> ChannelMessage:
    (message,) = ADAPTER.read_mail(raw.encode() if isinstance(raw, str) else raw, AT, envelope).messages
    return message


def test_over_http_no_mail_is_taken() -> None:
    for field in ({"client": "203.0.113.7"}, {"url": "https://intake.example/v1/channels/email/upay"}):
        request = ChannelRequest("POST", {}, {}, b"From: a@b.example\n\nx", AT, **field)
        with pytest.raises(Refused) as refused:
            ADAPTER.receive(request)
        assert refused.value.status == 404


async def test_what_the_notifiers_mail_server_cannot_reach_is_given_up() -> None:
    async def call(_: Any) -> Any:
        raise AssertionError("nobody is asked")

    reply = Reply(uuid.uuid4(), None, "李@邮箱.example", None, "x", Language.ZH, is_acknowledgement=False, at=AT)
    with pytest.raises(NotSent) as not_sent:
        await ADAPTER.send(reply, call)
    assert not_sent.value.hopeless


@pytest.mark.parametrize(
    ("address", "is_own"),
    [
        ("service@upay.example", True),
        ("SERVICE@UPay.Example", True),
        ("service+ticket@upay.example", True),
        ("+service@upay.example", False),
        ("other@upay.example", False),
        ("service@upay.example.evil.example", False),
        ("service", False),
        ("<>", False),
    ],
)
def test_whose_address_it_is(address: str, is_own: bool) -> None:
    assert ADAPTER.owns(address) is is_own


@pytest.mark.parametrize(
    "fields",
    [
        {"addresses": []},
        {"addresses": ["service"]},
        {"addresses": ["a@b.example"], "imap": {"host": "h", "username": "u"}},
        {"addresses": ["a@b.example"], "imap": {"host": "h", "username": "u", "password": "p", "security": "ssl"}},
    ],
)
def test_settings_that_cannot_work(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EmailConfig.model_validate(fields)


def test_the_password_is_told_nowhere() -> None:
    imap = {"host": "h", "username": "u", "password": "made-up"}
    assert "made-up" not in repr(EmailConfig.model_validate({"addresses": ["a@b.example"], "imap": imap}))


# --- ids -------------------------------------------------------------------------------------------------------------


def test_a_mail_without_an_id_is_known_again_however_it_came() -> None:
    mail = "From: a@b.example\nSubject: x\nDate: Fri, 20 Nov 2026 12:00:00 +0800\n\nHello\n"
    again = "Return-Path: <a@b.example>\r\nReceived: from a by b\r\n" + mail.replace("\n", "\r\n") + "\r\n"
    assert read(mail).message_id == read(again).message_id
    assert read(mail).message_id != read(mail.replace("Hello", "Hallo")).message_id


def test_an_answer_names_a_long_id_as_the_mail_itself_does() -> None:
    long_id = "x" * 250 + "@mail.example"
    first = read(f"From: a@b.example\nMessage-ID: <{long_id}>\n\nx")
    answer = read(f"From: a@b.example\nMessage-ID: <2@b.example>\nIn-Reply-To: <{long_id}>\n\nx")
    assert answer.in_reply_to == (first.message_id,)


def test_of_a_long_thread_the_nearest_mails_are_kept() -> None:
    references = "\n ".join(f"<{number}.{'x' * 100}@b.example>" for number in range(2000))
    message = read(f"From: a@b.example\nReferences: {references}\nIn-Reply-To: <last@b.example>\n\nx")
    assert len(message.in_reply_to) == 50
    assert message.in_reply_to[0] == "last@b.example"
    assert [item.partition(".")[0] for item in message.in_reply_to[1:]] == [str(n) for n in range(1999, 1950, -1)]


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_a_text_that_is_too_long_is_cut_and_says_so() -> None:
    message = read("From: a@b.example\nContent-Type: text/plain; charset=utf-8\n\n" + "充值" * 20_000)
    assert len(message.text) == 20_000
    assert message.text.endswith("充…")


def test_of_many_files_fifty_are_listed_and_the_rest_counted() -> None:
    part = "--b\nContent-Type: image/png; name={}.png\n\nx\n"
    files = "".join(part.format(number) for number in range(60))
    message = read(f"From: a@b.example\nContent-Type: multipart/mixed; boundary=b\n\n{files}--b--")
    assert len(message.attachments) == 50
    assert [message.attachments[48].name, message.attachments[49].name] == ["48.png", "… +11"]


def test_a_long_file_name_keeps_its_ending() -> None:
    name = "x" * 2000 + ".pdf.exe"
    part = f"--b\nContent-Type: a/b; name={name}\n\nx\n--b--"
    (attachment,) = read(f"From: a@b.example\nContent-Type: multipart/mixed; boundary=b\n\n{part}").attachments
    assert len(attachment.name) <= 500
    assert attachment.name.endswith(".pdf.exe")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"From: a@b.example\n" + b"X: y\n" * 200_000 + b"\nx", "too_large"),
        (b"From: a@b.example\n\n" + b"\n" * 500_000, "too_large"),
        (b"From: a@b.example\n\n" + b"x" * (mime.MOST_BYTES + 1), "too_large"),
        (b"From: a@b.example\nContent-Type: message/delivery-status\n\n" + b"a: b\n\n" * 1000, "too_many_parts"),
        (b"From: a@b.example\n" + b"Content-Type: message/rfc822\n\n" * 50, "too_deep"),
        (b"From: a@b.example\n" + b"Content-Type: multipart/mixed\n\n" * 100, "too_deep"),
        (b"From: a@b.example\r" + b"Content-Type: multipart/mixed\r\r" * 100, "too_deep"),
        (b"From: " + b"(" * 5000 + b"\n\nx", "malformed"),
    ],
    ids=["headers", "lines", "bytes", "report", "mails in mails", "containers", "carriage returns", "brackets"],
)
def test_what_would_take_too_long_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        ADAPTER.read_mail(raw, AT)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "html",
    [
        "<table>" + "<tr><td>" + "y" * 100_000 + "</td></tr>" + "<tr><td>x</td></tr>" * 5000 + "</table>",
        "<div style='padding-left:99999em;margin-top:99999em'>x</div>" * 100,
        "<ul><li>" * 200 + "<p>x" * 5000,
        "<blockquote>" * 200 + "<p>x" * 5000,
    ],
    ids=["table", "style", "lists", "quotes"],
)
def test_html_does_not_grow(html: str) -> None:
    assert 0 < len(html_text(html, FIRST)) < 2 * len(html) + 40 * html.count("<")


def test_html_that_is_nested_too_deeply_keeps_its_words() -> None:
    mail = "From: a@b.example\nContent-Type: text/html\n\n" + "<div>" * 1000 + "My money is gone" + "</div>" * 1000
    assert read(mail).text == "My money is gone"


# --- any bytes -------------------------------------------------------------------------------------------------------


@st.composite
def spoilt_mails(draw: st.DrawFn) -> bytes:
    """A recorded mail with pieces of it exchanged for anything, or for pieces of others."""
    mail = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(mail)))
        end = min(len(mail), start + draw(st.integers(0, 60)))
        other = draw(st.sampled_from(SEEDS))
        taken = draw(st.integers(0, len(other)))
        mail[start:end] = draw(st.binary(max_size=20) | st.just(other[taken : taken + 200]))
    return bytes(mail)


@given(
    st.binary(max_size=2000) | spoilt_mails(), st.none() | st.just(Envelope("a@b.example", ("service@upay.example",)))
)
def test_any_bytes_are_read_or_refused_and_the_same_again(raw: bytes, envelope: Envelope | None) -> None:
    try:
        answer = ADAPTER.read_mail(raw, AT, envelope)
    except Refused:
        return
    assert isinstance(answer, Answer)
    assert len(answer.messages) + len(answer.ignored) == 1
    assert ADAPTER.read_mail(raw, AT, envelope) == answer


CHINESE = st.text(
    st.sampled_from("我的账户里有一百元没到请问为什么充值失败了客服您好这个订单号是退款银行卡，。！？ 0123456789abc"),
    max_size=200,
)


@given(CHINESE.map(lambda text: f"您好，请问我的充值。{text}"), st.sampled_from(["gb2312", "gbk", "gb18030", "utf-8"]))
def test_chinese_is_read_whatever_charset_is_named(text: str, charset: str) -> None:
    assert mime.decode(text.encode(charset), charset) == text
    for wrong in (None, "utf-8", "us-ascii", "iso-8859-1", "x-unknown", "windows-1252"):
        assert mime.decode(text.encode(charset), wrong) == text


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Cf"]), min_size=1, max_size=100),
    st.data(),
)
def test_what_the_standard_library_writes_is_read(words: str, data: st.DataObject) -> None:
    mail = EmailMessage(policy=SMTP.clone(cte_type=data.draw(st.sampled_from(["7bit", "8bit"]))))
    mail["From"], mail["Message-ID"] = "li@mail.example", "<1@mail.example>"
    mail["Subject"] = f"x {words} x"
    mail.set_content("Words.")
    mail.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename=f"a{words}b.pdf")
    message = read(mail.as_bytes())
    assert message.subject is not None
    assert "".join(message.subject.split()) == "".join(f"x{words}x".split())
    assert "".join(message.attachments[0].name.split()) == "".join(f"a{words}b.pdf".split())


@given(st.text(max_size=300), st.booleans(), st.booleans())
def test_cutting_never_adds_and_never_fails(text: str, is_reply: bool, is_forward: bool) -> None:
    kind = Kind(is_reply, is_forward)
    assert len(own_text(text, kind)) <= len(text)
    assert isinstance(html_text(text, kind), str)


# --- what is cut, and what is not ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "bare", "is_reply", "is_forward"),
    [
        ("Re: Re: 回复：充值", "充值", True, False),
        ("答复: RE[2]: Fwd: 充值", "充值", True, False),
        ("转发：Re: 充值", "充值", False, True),
        ("Fw:充值", "充值", False, True),
        ("Refund: 100", "Refund: 100", False, False),
        ("回复我", "回复我", False, False),
        ("Re:", "", True, False),
    ],
)
def test_subjects(subject: str, bare: str, is_reply: bool, is_forward: bool) -> None:
    assert bare_subject(subject) == (bare, Kind(is_reply, is_forward))


@pytest.mark.parametrize(
    "text",
    [
        "在2026年11月20日的聊天里，你们的客服写道：\n请等三天。\n我已经等了五天。",
        "The agent wrote:\nwait\nI waited.",
        "我的问题：\n- 退款\n- 手续费",
        "钱来自我的银行卡",
        "发自内心地感谢",
        "I got this from my bank",
        "On 2026-11-20 I paid twice.\nPlease refund.",
        "From: Shanghai\nTo: Beijing\nI flew.",
        "--help does not work",
    ],
)
def test_a_customers_own_words_stay(text: str) -> None:
    for kind in (FIRST, ANSWER):
        assert own_text(text, kind) == text


@pytest.mark.parametrize(
    "line",
    [
        "发自我的iPhone",
        "发自我的 iPhone",
        "发自我的华为手机",
        "发自我的小米手机",
        "發自我的 iPhone",
        "从我的 iPhone 发送",
        "從我的 iPhone 傳送",
        "来自 Outlook",
        "发自网易邮箱大师",
        "从 Windows 版邮件发送",
        "获取 Outlook for iOS",
        "Get Outlook for Android<https://aka.ms/x>",
        "Sent from my iPhone",
        "Sent from my Galaxy",
        "Sent from Mail for Windows",
        "Sent from Outlook for iOS",
    ],
)
def test_lines_that_telephones_add_go(line: str) -> None:
    assert own_text(f"我要退款\n\n{line}\n", FIRST) == "我要退款"
    assert own_text(f"{line}\n我要退款", FIRST) == f"{line}\n我要退款"
