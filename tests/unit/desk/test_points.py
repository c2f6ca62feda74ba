"""The points of a ticket: which ones a routing brings, and who may tick them off."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from services.desk.domain import RefusalCode, Rules, State, Ticket, after_sign_of_life, tick_refusal
from services.desk.domain_points import points_of
from services.desk.domain_view import View, after_event
from shared.events import DecisionTrace
from shared.taxonomy import Category
from tests.unit.desk.samples import at, minutes, points_in, routed

ID = uuid.UUID(int=9)
TWO = points_in("充值没到账。怎么提现", missing_funds="充值没到账。", withdrawal="怎么提现")
BY_AGENT = DecisionTrace(decided_by="agent:mei", model="test")


def test_a_point_is_a_span_of_its_message_and_has_the_same_id_every_time() -> None:
    event = routed(ID, sequence=3, **TWO)
    found = points_of(event)
    assert [(point.category, point.start, point.end, point.text) for point in found] == [
        (Category.MISSING_FUNDS, 0, 6, "充值没到账。"),
        (Category.WITHDRAWAL, 6, 10, "怎么提现"),
    ]
    assert all(event.text[point.start : point.end] == point.text for point in found)
    assert {(point.ticket_id, point.message_event_id, point.sequence) for point in found} == {(ID, event.cause_id, 3)}
    assert points_of(routed(ID, sequence=3, **TWO)) == found
    others = points_of(routed(ID, sequence=4, **TWO)) + points_of(routed(uuid.UUID(int=8), sequence=3, **TWO))
    assert len({point.point_id for point in found + others}) == 6


def test_a_correction_tells_the_points_again_and_brings_none() -> None:
    assert points_of(routed(ID, revision=2, trace=BY_AGENT, **TWO)) == []


@pytest.mark.parametrize(
    ("text", "subject", "listed"),
    [
        ("你好", None, False),
        ("谢谢！", None, False),
        ("ok thank you", "Re: Your top-up", False),
        ("你好", "充值没到账", True),  # the matter stands in the subject
        ("在吗？", None, True),  # in doubt it is one
        ("qwertz", None, True),  # not understood, so an agent must look
    ],
)
def test_a_message_that_only_greets_or_thanks_brings_none(text: str, subject: str | None, listed: bool) -> None:
    assert bool(points_of(routed(ID, subject=subject, **points_in(text, other=text)))) is listed


def test_every_point_that_a_routing_brings_is_counted_once() -> None:
    view = View(Ticket(ID))
    for event in (
        routed(ID, revision=2, sequence=2, **points_in("充不了值", top_up="充不了值")),
        routed(ID, revision=1, **TWO),  # late, and listed all the same
        routed(ID, revision=3, sequence=3, **points_in("谢谢", other="谢谢")),
        routed(ID, revision=4, sequence=3, trace=BY_AGENT, **TWO),
    ):
        view = after_event(view, event, at(0), Rules())
    assert view.open_points == 3


HELD = Ticket(ID, State.CLAIMED, claimed_by="mei", claim_expires_at=at(15))


@pytest.mark.parametrize(
    ("ticket", "agent", "lead", "code"),
    [
        (HELD, "mei", False, None),
        (HELD, "tom", False, RefusalCode.CLAIMED_BY_ANOTHER),
        (HELD, "boss", True, None),
        (replace(HELD, state=State.WAITING_ON_CUSTOMER), "mei", False, None),
        (replace(HELD, state=State.RESOLVED), "mei", False, None),
        (replace(HELD, state=State.RESOLVED), "tom", False, RefusalCode.CLAIMED_BY_ANOTHER),
        (Ticket(ID), "mei", False, RefusalCode.NOT_CLAIMED),
        (Ticket(ID), "boss", True, RefusalCode.NOT_CLAIMED),
        (replace(HELD, state=State.RESOLVED, merged_into=uuid.UUID(int=1)), "mei", False, RefusalCode.MERGED),
    ],
)
def test_who_may_tick_off_a_point(ticket: Ticket, agent: str, lead: bool, code: RefusalCode | None) -> None:
    refused = tick_refusal(ticket, agent, is_lead=lead)
    assert (refused.code if refused else None) is code
    assert refused is None or str(ID) in refused.detail


def test_only_its_holder_keeps_a_ticket_by_a_sign_of_life() -> None:
    rules = Rules(take_back_after=minutes(15))
    assert after_sign_of_life(HELD, "mei", at(10), rules).claim_expires_at == at(25)
    assert after_sign_of_life(HELD, "boss", at(10), rules) == HELD
    resolved = replace(HELD, state=State.RESOLVED)
    assert after_sign_of_life(resolved, "mei", at(10), rules) == resolved
