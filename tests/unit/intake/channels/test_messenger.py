"""What the cases of tests/channels/messenger cannot say: replies above all."""

from __future__ import annotations

import pytest

from services.intake.channels.base import NotSent, Sent
from tests.unit.intake.channels.meta_samples import PSID, graph_api, messenger, reply, signed, text_event, webhook

COMMENT = "comment:777_888"


def test_an_address_that_is_none_does_not_lose_the_message() -> None:
    event = text_event("messenger", "see")
    event["message"]["attachments"] = [{"type": "image", "payload": {"url": "https://[half-an-address"}}]
    answer = messenger().receive(signed("messenger", webhook("messenger", event)))
    assert [attachment.name for attachment in answer.messages[0].attachments] == ["image"]


async def test_a_reply_goes_to_the_person() -> None:
    async with graph_api("messenger") as (graph, sender, call):
        assert await sender.send(reply(), call) == Sent(("m_1",))
    assert graph.taken == [
        {"recipient": {"id": PSID}, "messaging_type": "RESPONSE", "message": {"text": "We look into it."}}
    ]


async def test_after_24_hours_an_agent_may_answer_by_tag_where_that_is_allowed() -> None:
    async with graph_api("messenger", human_agent_tag=True) as (graph, sender, call):
        graph.late.add(PSID)
        assert await sender.send(reply(), call) == Sent(("m_1",))
    assert [(taken["messaging_type"], taken["tag"]) for taken in graph.taken] == [("MESSAGE_TAG", "HUMAN_AGENT")]


@pytest.mark.parametrize(("allowed", "is_acknowledgement"), [(False, False), (True, True)])
async def test_after_24_hours_other_replies_are_given_up(allowed: bool, is_acknowledgement: bool) -> None:
    async with graph_api("messenger", human_agent_tag=allowed) as (graph, sender, call):
        graph.late.add(PSID)
        with pytest.raises(NotSent) as failed:
            await sender.send(reply(is_acknowledgement=is_acknowledgement), call)
    assert failed.value.hopeless
    assert graph.asked == 1


async def test_a_lacking_permission_is_not_answered_by_tag() -> None:
    async with graph_api("messenger", human_agent_tag=True) as (graph, sender, call):
        graph.fail(403, 10)
        with pytest.raises(NotSent) as failed:
            await sender.send(reply(), call)
    assert not failed.value.hopeless
    assert graph.asked == 1


@pytest.mark.parametrize(
    ("code", "subcode"),
    [(10, 2018278), (551, None), (551, 1545041), (200, 1545041), (200, 2018028), (100, 2018001), (10903, None)],
)
async def test_who_cannot_be_reached_is_given_up(code: int, subcode: int | None) -> None:
    async with graph_api("messenger") as (graph, sender, call):
        graph.fail(400, code, subcode)
        with pytest.raises(NotSent) as failed:
            await sender.send(reply(), call)
    assert failed.value.hopeless


async def test_a_comment_is_answered_once_and_privately() -> None:
    async with graph_api("messenger", human_agent_tag=True) as (graph, sender, call):
        await sender.send(reply(reply_to=COMMENT), call)
        with pytest.raises(NotSent) as failed:
            await sender.send(reply("And another thing.", reply_to=COMMENT), call)
    assert [taken["recipient"] for taken in graph.taken] == [{"comment_id": "777_888"}]
    assert failed.value.hopeless


async def test_a_comment_is_not_answered_by_tag() -> None:
    async with graph_api("messenger", human_agent_tag=True) as (graph, sender, call):
        graph.fail(400, 10, 2018278)
        with pytest.raises(NotSent):
            await sender.send(reply(reply_to=COMMENT), call)
    assert graph.asked == 1


async def test_the_one_reply_to_a_comment_is_kept_for_the_agent() -> None:
    async with graph_api("messenger") as (graph, sender, call):
        with pytest.raises(NotSent) as failed:
            await sender.send(reply(reply_to=COMMENT, is_acknowledgement=True), call)
    assert failed.value.hopeless
    assert graph.asked == 0


async def test_a_brand_may_acknowledge_comments() -> None:
    async with graph_api("messenger", acknowledge_comments=True) as (graph, sender, call):
        await sender.send(reply(reply_to=COMMENT, is_acknowledgement=True), call)
    assert len(graph.taken) == 1


async def test_a_reply_to_a_comment_that_is_too_long_is_not_sent_in_half() -> None:
    async with graph_api("messenger") as (graph, sender, call):
        with pytest.raises(NotSent) as failed:
            await sender.send(reply("a " * 1001, reply_to=COMMENT), call)
    assert failed.value.hopeless
    assert graph.asked == 0
