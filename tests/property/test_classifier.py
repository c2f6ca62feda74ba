"""What holds of every decision, whatever the text."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.classifier.domain.decide import Classifier, Decision, Message
from services.classifier.domain.tickets import TicketState, merge
from shared.events.queues import Facts
from shared.taxonomy import CATEGORIES, Category, Channel, Queue

CLASSIFIER = Classifier()
SENT_AT = datetime(2026, 11, 5, 2, 0, tzinfo=UTC)

# Pieces that the rules know, so that random texts reach into them, between any unicode.
PIECES = [
    *("付款失败", "充值", "没到账", "被盗", "第二，", "另外", "also ", "refund ", "top up ", "not ", "arrive "),
    *("昨天", "下午三点", "11月31日", "13/13", "25:61", "2026-", "1.", "。", "；", "？", "!!", " ", "\n", "😀"),
    *("两千块", "¥1,299.00", "5k", "万", "一", "$", "order ", "A1B2C3", "@", "a@b.cn", "+86", "13800138000"),
    *("[card]", "iPhone ", "error ", "E_1"),
]
TEXTS = st.lists(
    st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8),
    max_size=25,
).map("".join)


def decide(text: str) -> Decision:
    return CLASSIFIER.classify(Message(text, sent_at=SENT_AT))


@given(TEXTS)
def test_a_decision_is_whole(text: str) -> None:
    decision = decide(text)
    assert 0 < decision.confidence <= 1
    assert decision.queue in (CATEGORIES[decision.category].queue, Queue.TRIAGE)
    understood = decision.trace.steps[0].detail != "nothing spoke for any category"
    sure = understood and decision.confidence >= CLASSIFIER.model.thresholds[decision.category]
    assert (decision.queue is Queue.TRIAGE) == (not sure)
    assert decision.category not in {one.category for one in decision.alternatives}
    scores = [one.score for one in decision.alternatives]
    assert scores == sorted(scores, reverse=True)
    assert decision.reasons[0].effect == CATEGORIES[decision.category].priority
    assert set(decision.missing) <= set(CATEGORIES[decision.category].facts)


@given(TEXTS)
def test_points_are_spans_of_the_text_in_order_without_overlap(text: str) -> None:
    points = decide(text).points
    assert bool(points) == bool(text)
    end = 0
    for point in points:
        assert end <= point.start <= point.end <= len(text)
        assert text[point.start : point.end] == point.text
        end = point.end
    for point, following in pairwise(points):
        assert point.category is not following.category


@given(TEXTS)
def test_facts_are_spans_of_the_text(text: str) -> None:
    decision = decide(text)
    for fact in decision.found_facts:
        assert 0 <= fact.start < fact.end <= len(text)
    assert Facts(**{fact.field: fact.value for fact in decision.found_facts}) == decision.facts


@given(TEXTS)
def test_the_same_message_gives_the_same_decision(text: str) -> None:
    assert decide(text) == Classifier().classify(Message(text, sent_at=SENT_AT))


@given(TEXTS, st.sampled_from(Channel), st.booleans())
def test_a_voice_or_a_vip_is_never_less_urgent(text: str, channel: Channel, vip: bool) -> None:
    message = Message(text, channel=channel, vip=vip, sent_at=SENT_AT)
    assert CLASSIFIER.classify(message).priority <= decide(text).priority


@given(st.lists(st.tuples(TEXTS, st.integers(0, 120)), min_size=1, max_size=6))
@settings(max_examples=60)
def test_a_ticket_is_only_ever_raised_and_safety_is_never_displaced(told: list[tuple[str, int]]) -> None:
    state: TicketState | None = None
    sent_at = SENT_AT
    for text, minutes in told:
        sent_at += timedelta(minutes=minutes)
        message = Message(text, sent_at=sent_at)
        routed = merge(state, CLASSIFIER.classify(message), message, sent_at, CLASSIFIER.rulebook.priorities)
        if state is not None:
            assert routed.state.priority <= state.priority
            assert routed.state.revision == state.revision + 1
            assert {name for name, value in state.facts if value} <= {
                name for name, value in routed.state.facts if value
            }
            sure = state.queue is not Queue.TRIAGE
            if sure and state.category is Category.ACCOUNT_SECURITY:
                assert routed.state.category is Category.ACCOUNT_SECURITY
        state = routed.state


@pytest.mark.parametrize(
    "unit",
    [
        "1",
        "万",
        "一万",
        "没",
        "付款失败。提现。",
        "¥",
        "a@",
        "十",
        "昨天",
        "1,000",
        "didnt ",
        "第一，",
        "e1",
        "+1 ",
        "\n",
        "\u0301",
    ],
)
def test_a_long_text_of_one_thing_costs_no_more_than_its_length(unit: str) -> None:
    """The longest text that the contract lets in. Unbounded patterns took from seven seconds to forty."""
    text = (unit * 20_000)[:20_000]
    begun = time.process_time()
    decide(text)
    assert time.process_time() - begun < 2.0
