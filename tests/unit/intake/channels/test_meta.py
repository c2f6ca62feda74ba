"""What holds for Messenger and WhatsApp alike."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.intake.channels.base import Answer, ChannelRequest, NotSent, Refused
from tests.channels import cases
from tests.unit.intake.channels.meta_samples import (
    AT,
    NUMBER,
    PAGE,
    PSID,
    WA_ID,
    adapter,
    graph_api,
    reply,
    signed,
    text_event,
    webhook,
)

PROVIDERS = pytest.mark.parametrize("provider", ["messenger", "whatsapp"])

# --- receiving ---


@PROVIDERS
def test_a_request_that_is_replayed_has_the_same_messages(provider: str) -> None:
    for named in cases.load(provider):
        request = named.case.request.built()
        if named.case.expect.messages:
            assert adapter(provider).receive(request) == adapter(provider).receive(request)


@PROVIDERS
def test_an_empty_secret_signs_nothing(provider: str) -> None:
    request = signed(provider, webhook(provider, text_event(provider, "forged")), secret="")
    with pytest.raises(Refused) as refused:
        adapter(provider, app_secret_previous="").receive(request)
    assert refused.value.reason == "signature"
    with pytest.raises(ValidationError):
        adapter(provider, app_secret="")


@PROVIDERS
@pytest.mark.parametrize("claimed", ["", "sha256=", "sha256=é\ud800", "sha1=00", "SHA256=00"])
def test_a_signature_that_is_none_is_refused(provider: str, claimed: str) -> None:
    body = webhook(provider, text_event(provider, "forged"))
    with pytest.raises(Refused) as refused:
        adapter(provider).receive(ChannelRequest("POST", {}, {"x-hub-signature-256": claimed}, body, AT))
    assert (refused.value.status, refused.value.reason) == (401, "signature")


@PROVIDERS
def test_a_signature_is_checked_before_anything_is_read(provider: str) -> None:
    with pytest.raises(Refused) as refused:
        adapter(provider).receive(ChannelRequest("POST", {}, {}, b"no JSON", AT))
    assert refused.value.reason == "signature"


@PROVIDERS
def test_one_byte_of_the_body_changes_the_signature(provider: str) -> None:
    request = signed(provider, webhook(provider, text_event(provider, "1 yuan")))
    changed = request.body.replace(b"1 yuan", b"9 yuan")
    with pytest.raises(Refused) as refused:
        adapter(provider).receive(ChannelRequest("POST", {}, request.headers, changed, AT))
    assert refused.value.reason == "signature"


@PROVIDERS
def test_a_text_that_is_too_long_is_cut_and_says_so(provider: str) -> None:
    answer = adapter(provider).receive(signed(provider, webhook(provider, text_event(provider, "a" * 30_000))))
    assert answer.messages[0].text == "a" * 19_999 + "…"


@PROVIDERS
def test_half_a_surrogate_pair_does_not_lose_the_message(provider: str) -> None:
    answer = adapter(provider).receive(signed(provider, webhook(provider, text_event(provider, "no money \ud83d"))))
    assert answer.messages[0].text == "no money ?"


@PROVIDERS
def test_ids_that_are_too_long_are_told_apart(provider: str) -> None:
    events = [text_event(provider, end, "wamid." + "x" * 300 + end) for end in "ab"]
    answer = adapter(provider).receive(signed(provider, webhook(provider, *events)))
    assert len({message.message_id for message in answer.messages}) == 2
    assert answer.ignored == ()


@PROVIDERS
@pytest.mark.parametrize("timestamp", [None, True, [], "", "soon", -1, 10**30, "9" * 30, float("inf"), float("nan")])
def test_a_time_that_is_none_does_not_lose_the_message(provider: str, timestamp: Any) -> None:
    event = text_event(provider, "no money") | {"timestamp": timestamp}
    answer = adapter(provider).receive(signed(provider, webhook(provider, event)))
    assert [message.text for message in answer.messages] == ["no money"]


_NAMES = st.sampled_from(
    """
    object entry id messaging changes standby field value sender recipient timestamp message mid text attachments type
    payload url coordinates lat quick_reply reply_to postback title message_edit num_edit is_echo is_deleted time item
    verb from comment_id parent_id created_time photo post metadata phone_number_id contacts wa_id user_id profile name
    messages statuses errors status body image caption mime_type location interactive nfm_reply response_json
    button_reply order product_items edit original_message_id revoke context referral unsupported group_id
    """.split()  # noqa: SIM905 - a list of so many names would be a page long
)
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | _NAMES
    | st.sampled_from(
        ["feed", "comment", "add", "edited", "remove", PAGE, NUMBER, PSID, WA_ID, '{"a": [1]}', "[", "9" * 400]
    )
)
_JSON: st.SearchStrategy[Any] = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=6), max_leaves=25
)
_OBJECTS = st.dictionaries(_NAMES, _JSON, max_size=8)


def _bodies(provider: str) -> st.SearchStrategy[bytes]:
    """From anything at all to events that are nearly right."""
    likely = _OBJECTS.map(lambda event: text_event(provider, "x") | event)
    nearly = st.lists(likely, max_size=3).map(lambda events: webhook(provider, *events))
    topic = "page" if provider == "messenger" else "whatsapp_business_account"
    entries = st.lists(_OBJECTS.map(lambda entry: {"id": PAGE} | entry), max_size=3)
    enveloped = entries.map(lambda content: json.dumps({"object": topic, "entry": content}).encode())
    changes = _OBJECTS.map(
        lambda value: json.dumps(
            {
                "object": topic,
                "entry": [{"id": PAGE, "changes": [{"field": "feed", "value": {"item": "comment"} | value}]}],
            }
        ).encode()
    )
    return nearly | enveloped | changes | _JSON.map(lambda content: json.dumps(content).encode()) | st.binary()


@PROVIDERS
@given(data=st.data())
def test_whatever_is_sent_is_answered_or_refused(provider: str, data: st.DataObject) -> None:
    request = signed(provider, data.draw(_bodies(provider)))
    outcome: Answer | Refused
    try:
        outcome = adapter(provider).receive(request)
    except Refused as refused:
        outcome = refused
    assert outcome.status == (200 if isinstance(outcome, Answer) else 400)


# --- sending ---


@PROVIDERS
async def test_a_long_reply_goes_in_parts_and_a_further_try_goes_on(provider: str) -> None:
    text = "\n".join(f"{number}. " + "wait, " * 160 for number in range(1, 11))
    async with graph_api(provider) as (graph, sender, call):
        await sender.send(reply(text, customer_id=WA_ID), call)
        whole = [_text_of(taken) for taken in graph.taken]
        assert len(whole) > 1
        assert "".join("".join(whole).split()) == "".join(text.split())

        graph.taken.clear()
        graph.fail_next = [(200, json.dumps({"message_id": "m_a", "messages": [{"id": "wamid.a"}]}), {})]
        graph.fail(503, 2)
        with pytest.raises(NotSent) as failed:
            await sender.send(reply(text, customer_id=WA_ID), call)
        assert not failed.value.hopeless
        sent = await sender.send(reply(text, customer_id=WA_ID), call)
        assert [_text_of(taken) for taken in graph.taken] == whole[1:]
        assert len(sent.message_ids) == len(whole)


@PROVIDERS
@pytest.mark.parametrize(
    ("status", "code"), [(401, 190), (400, 4), (503, 2), (500, 1), (400, 613), (400, 10), (400, 368)]
)
async def test_what_may_pass_is_tried_again(provider: str, status: int, code: int) -> None:
    async with graph_api(provider) as (graph, sender, call):
        graph.fail(status, code)
        with pytest.raises(NotSent) as failed:
            await sender.send(reply(customer_id=WA_ID), call)
    assert not failed.value.hopeless
    assert failed.value.detail == f"Graph API {status}, code {code}, subcode 0"
    assert failed.value.retry_after_seconds is None


@PROVIDERS
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": "Fri, 20 Nov 2026 04:00:00 GMT"}, None),
        (
            {
                "X-Business-Use-Case-Usage": json.dumps(
                    {
                        "1": [
                            {"type": "messenger", "estimated_time_to_regain_access": 0},
                            {"estimated_time_to_regain_access": 7},
                        ]
                    }
                )
            },
            420,
        ),
        ({"X-Business-Use-Case-Usage": '{"1": [{"estimated_time_to_regain_access": 999999999}]}'}, 86_400),
        ({"X-Business-Use-Case-Usage": '{"1": "?", "2": [{"estimated_time_to_regain_access": "?"}]}'}, None),
        ({"X-Business-Use-Case-Usage": "["}, None),
        ({"X-Business-Use-Case-Usage": "[]"}, None),
    ],
)
async def test_meta_says_when_to_come_again(provider: str, headers: dict[str, str], seconds: float | None) -> None:
    async with graph_api(provider) as (graph, sender, call):
        graph.fail(400, 4, headers=headers)
        with pytest.raises(NotSent) as failed:
            await sender.send(reply(customer_id=WA_ID), call)
    assert failed.value.retry_after_seconds == seconds


@PROVIDERS
@pytest.mark.parametrize("content", ["<html>maintenance</html>", "[]", '{"error": "?"}', '{"error": {"code": "?"}}'])
async def test_an_answer_that_is_none_of_the_graph_api_is_tried_again(provider: str, content: str) -> None:
    async with graph_api(provider) as (graph, sender, call):
        graph.fail_next = [(200, content, {})]
        with pytest.raises(NotSent) as failed:
            await sender.send(reply(customer_id=WA_ID), call)
    assert not failed.value.hopeless


@PROVIDERS
async def test_a_wrong_token_is_told_without_it(provider: str) -> None:
    async with graph_api(provider, access_token="another-token") as (graph, sender, call):
        with pytest.raises(NotSent) as failed:
            await sender.send(reply(customer_id=WA_ID), call)
    assert graph.taken == []
    assert failed.value.detail == "Graph API 401, code 190, subcode 0"


def _text_of(taken: dict[str, Any]) -> str:
    text = taken["message"]["text"] if "message" in taken else taken["text"]["body"]
    assert isinstance(text, str)
    return text
