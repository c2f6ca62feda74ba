"""App chat: whatever is sent, tokens of all kinds, and what a customer's history shows."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from services.intake.channels.app_chat import AppChat, AppChatConfig, Session
from services.intake.channels.base import Answer, Call, ChannelRequest, NotSent, Refused
from services.intake.channels.embedding import framed_policy, host_of, may_connect
from services.intake.chat import Inbox, Item, after, history_of
from services.intake.chat_storage import StoredReply
from shared.events import Attachment, Customer, Disposition, TicketMessage
from shared.taxonomy import Channel, Language
from tests.support.chat import BRAND, SECRET, reply_to

NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
CHAT = AppChat(BRAND, AppChatConfig.model_validate({"token_secret": SECRET, "visitors": True}))


def token(key: str | bytes = SECRET, **claims: Any) -> str:
    said = {"sub": "c-1", "aud": BRAND, "exp": int((NOW + timedelta(hours=1)).timestamp()), **claims}
    return jwt.encode({name: value for name, value in said.items() if value is not None}, key, algorithm="HS256")


def posted(body: bytes, authorization: str | None = None) -> ChannelRequest:
    return ChannelRequest(
        method="POST",
        query={},
        headers={"authorization": authorization or f"Bearer {token()}"},
        body=body,
        received_at=NOW,
    )


def written(**fields: Any) -> Any:
    return CHAT.receive(posted(json.dumps({"message_id": "m", **fields}).encode())).messages[0]


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_FIELDS = ("type", "message_id", "text", "sent_at", "attachments", "edits", "deletes", "in_reply_to")


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(_FIELDS), _VALUES) | st.fixed_dictionaries({"message_id": st.just("m")}))
def test_any_json_is_answered_or_refused(content: dict[str, Any]) -> None:
    outcome: Answer | Refused
    try:
        outcome = CHAT.receive(posted(json.dumps({"text": "hello", **content}).encode()))
    except Refused as refused:
        outcome = refused
    assert outcome.status in (200, 400, 422)


@settings(deadline=None)
@given(st.binary(max_size=200), st.text(max_size=200))
def test_any_bytes_are_refused(body: bytes, credentials: str) -> None:
    with pytest.raises(Refused):
        CHAT.receive(posted(body, f"Bearer {credentials}"))
    with pytest.raises(Refused):
        CHAT.receive(posted(b"\xff" + body))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["sub", "exp", "name", "phone", "email", "lang", "vip"]), _VALUES))
def test_any_claims_give_a_session_or_a_refusal(claims: dict[str, Any]) -> None:
    try:
        signed = token(**claims)
    except (TypeError, ValueError):  # what PyJWT itself does not sign
        return
    outcome: Session | Refused
    try:
        outcome = CHAT.session(signed, NOW)
    except Refused as refused:
        outcome = refused
    assert outcome.expires_at > NOW if isinstance(outcome, Session) else outcome.status == 401


def test_what_is_too_long_is_cut_and_says_so() -> None:
    assert len(written(text="x" * 20_000).text) == 20_000
    message = written(text="x" * 20_010, attachments=[{"name": "n" * 600}] * 60)
    assert (len(message.text), message.text[-2:]) == (20_000, "x…")
    assert (len(message.attachments), message.attachments[0].name[-1]) == (50, "…")
    assert CHAT.session(token(name="n" * 900), NOW).customer.name == "n" * 499 + "…"


def test_half_an_emoji_does_not_lose_the_message() -> None:
    assert written(text="ok \ud83d").text == "ok ?"


def test_a_time_that_is_too_early_does_not_jump_the_queue() -> None:
    kept = NOW - timedelta(hours=23)
    assert written(text="x", sent_at=kept.isoformat()).sent_at == kept
    assert written(text="x", sent_at=(NOW - timedelta(hours=25)).isoformat()).sent_at == NOW


def test_a_frame_is_bounded() -> None:
    with pytest.raises(Refused) as refused:
        CHAT.receive(posted(json.dumps({"message_id": "m", "text": "x" * 65_536}).encode()))
    assert refused.value.status == 413


def test_verified_is_what_the_brand_says_and_has() -> None:
    has_mail = token(phone_verified=True, email="a@example.com", email_verified=True)
    assert CHAT.session(has_mail, NOW).verified == ("email",)
    assert CHAT.session(token(phone="+8613800138000", email="a@example.com"), NOW).verified == ()


def test_a_visitor_s_token_is_his_and_ends() -> None:
    signed, session = CHAT.visitor_token("abc", "zh", NOW)
    assert (session.customer.id, session.customer.language, session.is_visitor) == ("visitor-abc", Language.ZH, True)
    assert CHAT.session(signed, NOW + timedelta(days=6)) == session
    with pytest.raises(Refused, match="stale"):
        CHAT.session(signed, NOW + timedelta(days=7))
    other = AppChat("topay", CHAT.config)
    with pytest.raises(Refused):
        other.session(signed, NOW)


@pytest.mark.parametrize("secret", ["", "short", "x" * 31])
def test_a_short_secret_is_no_secret(secret: str) -> None:
    with pytest.raises(ValidationError) as wrong:
        AppChatConfig.model_validate({"token_secret": secret})
    assert "32 bytes" in str(wrong.value)
    assert not secret or f"'{secret}'" not in str(wrong.value)


@pytest.mark.parametrize(
    "origin", ["*", "https://shop.example/", "https://shop.example; script-src *", "shop.example", "https://*.example"]
)
def test_an_origin_is_an_origin(origin: str) -> None:
    with pytest.raises(ValidationError):
        AppChatConfig.model_validate({"token_secret": SECRET, "allowed_origins": [origin]})


async def test_an_adapter_alone_cannot_deliver() -> None:
    async def call(_: Any) -> Any:
        raise AssertionError("nothing is called")

    sender: Call = call
    with pytest.raises(NotSent, match="ChatHub") as failed:
        await CHAT.send(reply_to("c-1", "x"), sender)
    assert not failed.value.hopeless


# --- pages in frames ----------------------------------------------------------------------------------------------


def test_the_policy_names_who_may_frame() -> None:
    policy = framed_policy(["https://a.example"], "script-src 'self'")
    assert policy == (
        "default-src 'none'; script-src 'self'; base-uri 'none'; frame-ancestors 'self' https://a.example"
    )


@pytest.mark.parametrize(
    ("header", "host"),
    [("a.example:8001", "a.example:8001"), ("[::1]:80", "[::1]:80"), ("a;b", ""), ("a b", ""), ("", "")],
)
def test_a_host_is_a_host(header: str, host: str) -> None:
    assert host_of(header) == host


@pytest.mark.parametrize(
    ("origin", "host", "is_let_in"),
    [
        ("https://chat.example", "chat.example", True),
        ("https://CHAT.example", "chat.EXAMPLE", True),
        ("https://chat.example:444", "chat.example", False),
        ("null", "", False),
        ("", "", False),
    ],
)
def test_who_may_connect(origin: str, host: str, *, is_let_in: bool) -> None:
    assert may_connect(origin, host, ()) is is_let_in


# --- history ------------------------------------------------------------------------------------------------------


def stored(number: int, message_id: str, text: str = "", **changes: Any) -> TicketMessage:
    return TicketMessage(
        **{
            "ticket_id": uuid.UUID(int=1),
            "brand": BRAND,
            "channel": Channel.APP_CHAT,
            "message_id": message_id,
            "sequence": number,
            "disposition": Disposition.FOLLOWED_UP,
            "customer": Customer(id="c-1"),
            "text": text,
            "sent_at": NOW,
            "accepted_at": NOW + timedelta(seconds=number),
            "opened_at": NOW,
            **changes,
        }
    )


def test_the_history_shows_last_words() -> None:
    picture = (Attachment(name="a.png"),)
    items = history_of(
        "c-1",
        [
            stored(5, "c-1/m-5", edits="c-1/m-1", text="three"),
            stored(1, "c-1/m-1", "one", attachments=picture),
            stored(3, "c-1/m-3", edits="c-1/m-1", text="two"),
            stored(4, "c-1/m-4", deletes="c-1/m-2"),
            stored(2, "c-1/m-2", "gone", attachments=picture),
            stored(6, "flood/1", "one\nthree", folded=2),
            stored(7, "c-1/m-7"),
            stored(8, "c-1/m-8", edits="c-1/of-last-year", text="old"),
            stored(9, "of-another-client", "hi"),
        ],
        [StoredReply(uuid.UUID(int=9), "reply", True, NOW + timedelta(seconds=4.5))],
    )
    assert [(item.id, item.text, item.is_edited, item.is_deleted, len(item.attachments)) for item in items] == [
        ("m-1", "three", True, False, 1),
        ("m-2", "", False, True, 0),
        (str(uuid.UUID(int=9)), "reply", False, False, 0),
        ("m-7", "", False, True, 0),
        ("of-another-client", "hi", False, False, 0),
    ]
    assert [item.sender for item in items] == ["customer", "customer", "brand", "customer", "customer"]


def test_since_repeats_what_two_transactions_may_have_swapped() -> None:
    items = [
        Item(id=str(second), sender="brand", text="", at=NOW + timedelta(seconds=second)) for second in (0, 50, 60, 70)
    ]
    assert [item.id for item in after(items, "60")] == ["50", "70"]
    assert after(items, "unknown") == items
    assert after(items, None) == items


# --- a socket that does not keep up --------------------------------------------------------------------------------


def test_a_slow_client_is_told_to_look_up_what_it_missed() -> None:
    inbox = Inbox(asyncio.Queue(4))
    answer = {"type": "accepted", "message_id": "m"}
    for frame in (
        {"type": "reply", "id": "1"},
        answer,
        *({"type": "reply", "id": str(number)} for number in (2, 3, 4)),
    ):
        inbox.push(frame)
    waiting = [inbox.frames.get_nowait() for _ in range(inbox.frames.qsize())]
    assert waiting == [answer, {"type": "refresh"}]
