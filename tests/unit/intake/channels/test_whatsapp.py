"""What the cases of tests/channels/whatsapp cannot say: replies above all."""

from __future__ import annotations

import pytest

from services.intake.channels.base import NotSent, Sent
from tests.unit.intake.channels.meta_samples import WA_ID, graph_api, reply, signed, text_event, webhook, whatsapp


@pytest.mark.parametrize("response", ["not JSON", "[1, 2]", "[" * 100_000])
def test_a_form_that_cannot_be_read_is_shown_as_it_is(response: str) -> None:
    interactive = {"type": "nfm_reply", "nfm_reply": {"name": "flow", "body": "Sent", "response_json": response}}
    event = {"from": "1", "id": "wamid.1", "timestamp": "1", "type": "interactive", "interactive": interactive}
    answer = whatsapp().receive(signed("whatsapp", webhook("whatsapp", event)))
    assert answer.messages[0].text[:8] == response[:8]


def test_a_contact_lends_nobody_else_its_identity() -> None:
    event = text_event("whatsapp", "Where is my money?") | {"from": "447700900001"}
    answer = whatsapp().receive(signed("whatsapp", webhook("whatsapp", event)))  # its one contact is WA_ID
    assert [(message.customer.id, message.customer.phone) for message in answer.messages] == [
        ("447700900001", "+447700900001")
    ]


async def test_a_reply_goes_to_the_number_and_quotes_what_it_answers() -> None:
    async with graph_api("whatsapp") as (graph, sender, call):
        assert await sender.send(reply(customer_id=WA_ID, reply_to="wamid.HBgL1"), call) == Sent(("wamid.1",))
    assert graph.taken == [
        {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": WA_ID,
            "type": "text",
            "text": {"preview_url": False, "body": "We look into it."},
            "context": {"message_id": "wamid.HBgL1"},
        }
    ]


async def test_who_hides_his_number_is_reached_by_his_user_id() -> None:
    async with graph_api("whatsapp") as (graph, sender, call):
        await sender.send(reply(customer_id="CN.13491208655302741918"), call)
    assert graph.taken[0]["recipient"] == "CN.13491208655302741918"
    assert "to" not in graph.taken[0]
    assert "context" not in graph.taken[0]


async def test_only_the_first_part_quotes() -> None:
    async with graph_api("whatsapp") as (graph, sender, call):
        await sender.send(reply("Wait. " * 1000, customer_id=WA_ID, reply_to="wamid.HBgL1"), call)
    assert ["context" in taken for taken in graph.taken] == [True, False]


async def test_after_24_hours_a_reply_is_given_up() -> None:
    async with graph_api("whatsapp") as (graph, sender, call):
        graph.late.add(WA_ID)
        with pytest.raises(NotSent) as failed:
            await sender.send(reply(customer_id=WA_ID), call)
    assert failed.value.hopeless
    assert failed.value.detail == "Graph API 400, code 131047, subcode 0"


@pytest.mark.parametrize(
    ("code", "hopeless"),
    [(131026, True), (131030, True), (131051, True), (131062, True), (100, True)]
    + [(code, False) for code in (0, 190, 80007, 130429, 131016, 131048, 131056, 131031, 131042, 133010)],
)
async def test_codes(code: int, hopeless: bool) -> None:
    async with graph_api("whatsapp") as (graph, sender, call):
        graph.fail(400, code)
        with pytest.raises(NotSent) as failed:
            await sender.send(reply(customer_id=WA_ID), call)
    assert failed.value.hopeless is hopeless
