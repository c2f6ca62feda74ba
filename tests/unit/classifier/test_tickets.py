"""A ticket over its messages: raised, moved, added to, corrected."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.classifier.domain.decide import Classifier, Message
from services.classifier.domain.tickets import Routed, TicketState, correct, merge
from shared.events import ActivityKind, TicketActivity
from shared.taxonomy import Category, Fact, Priority, Queue

CLASSIFIER = Classifier()
BEGUN = datetime(2026, 11, 5, 2, 0, tzinfo=UTC)


def follow(before: TicketState | None, text: str, minutes: float = 0, **more: Any) -> Routed:
    sent_at = BEGUN + timedelta(minutes=minutes)
    message = Message(text, sent_at=sent_at, **more)
    return merge(before, CLASSIFIER.classify(message), message, sent_at, CLASSIFIER.rulebook.priorities)


def opened(text: str, **more: Any) -> TicketState:
    return follow(None, text, **more).state


def corrected(before: TicketState, **named: Any) -> TicketState:
    activity = TicketActivity(
        ticket_id=uuid.UUID(int=1),
        activity_id="a-1",
        kind=ActivityKind.CORRECTED,
        agent="anna",
        at=BEGUN,
        **named,
    )
    return correct(before, activity, contact_known=False, model="m-1").state


@pytest.mark.parametrize(
    ("first", "then", "category"),
    [
        ("怎么联系人工客服", "转账的钱没到账", Category.MISSING_FUNDS),  # how_to gives way
        ("你好", "充值失败", Category.TOP_UP),  # so does a greeting
        ("我要投诉你们", "充值失败", Category.TOP_UP),  # and a complaint
        ("充值失败", "充值的钱没到账", Category.MISSING_FUNDS),
        ("转账的钱没到账", "我被骗子骗了", Category.ACCOUNT_SECURITY),
        ("我被骗子骗了", "转账的钱没到账", Category.ACCOUNT_SECURITY),  # safety is not displaced
        ("充值失败", "优惠券怎么用", Category.TOP_UP),  # equals do not displace each other
        ("充值失败", "谢谢", Category.TOP_UP),
        ("充值失败", "hello?", Category.TOP_UP),
        ("充值失败", "qwv zzk", Category.TOP_UP),
        ("充值失败", "我要投诉你们", Category.TOP_UP),
        ("qwv zzk", "充值失败", Category.TOP_UP),  # triage is left when it is plain
    ],
)
def test_a_message_moves_the_ticket_when_its_matter_weighs_more(first: str, then: str, category: Category) -> None:
    before = opened(first)
    after = follow(before, then, 1)
    assert after.state.category is category
    assert after.previous_queue == (before.queue if after.state.queue is not before.queue else None)
    assert after.state.revision == 2
    assert after.trace.steps[-1].step == "ticket"


@pytest.mark.parametrize("then", ["好的谢谢", "怎么提现", "付款失败5元", "优惠券怎么用"])
def test_a_message_never_lowers(then: str) -> None:
    before = opened("我的账户被盗了")
    assert follow(before, then, 60).state.priority is Priority.P1


def test_a_threat_told_later_raises() -> None:
    before = opened("我要退款")
    after = follow(before, "再不处理我就找律师", 1)
    assert (before.priority, after.state.priority, after.previous_priority) == (Priority.P3, Priority.P2, Priority.P3)


def test_what_was_told_earlier_adds_up_with_what_is_told_now_and_counts_once() -> None:
    state = opened("我要退款8000元")  # P3, much at stake: P2
    assert state.priority is Priority.P2
    state = follow(state, "退款8000元还没处理", 1).state
    assert state.priority is Priority.P2
    state = follow(state, "再不处理我就找律师", 2).state
    assert state.priority is Priority.P1


def test_the_third_contact_raises_and_lines_of_one_burst_are_one_contact() -> None:
    state = opened("我要退款")
    for seconds in (5, 10, 15, 20):
        state = follow(state, "在吗", seconds / 60).state
    assert (state.contacts, state.priority) == (1, Priority.P3)
    state = follow(state, "有人吗", 30).state
    assert (state.contacts, state.priority) == (2, Priority.P3)
    after = follow(state, "有人吗", 60)
    assert (after.state.contacts, after.state.priority) == (3, Priority.P2)
    assert "repeated_contact" in {reason.rule for reason in after.reasons}
    # The fourth is no new reason.
    assert follow(after.state, "有人吗", 90).state.priority is Priority.P2


def test_a_question_that_turns_into_a_case_loses_its_step_down() -> None:
    state = opened("怎么提现")
    assert state.priority is Priority.P3
    assert follow(state, "你好", 1).state.priority is Priority.P3  # says nothing new
    assert follow(state, "提现失败了", 1).state.priority is Priority.P2


def test_a_trifle_stays_a_trifle_until_more_is_at_stake() -> None:
    state = opened("付款失败，5元")
    assert state.priority is Priority.P3
    assert follow(state, "付款还是失败", 1).state.priority is Priority.P3
    assert follow(state, "付款失败的是6000元", 1).state.priority is Priority.P1  # P2 and one step up


def test_facts_add_up_and_less_is_missing() -> None:
    first = follow(None, "充值失败")
    assert first.missing == (Fact.TIME, Fact.AMOUNT, Fact.METHOD, Fact.ORDER_NO)
    second = follow(first.state, "200元，用支付宝", 1)
    assert second.missing == (Fact.TIME, Fact.ORDER_NO)
    third = follow(second.state, "昨天下午，订单号AB123456", 2)
    assert third.missing == ()
    assert third.state.facts.amount == "200"


def test_messages_out_of_order_do_not_count_as_new_contacts() -> None:
    state = follow(opened("我要退款"), "在吗", 60).state
    late = follow(state, "我要退款8000元", 5).state
    assert late.contacts == state.contacts
    assert late.last_message_at == state.last_message_at


def test_a_correction_sets_what_it_names_and_what_follows() -> None:
    before = opened("付款失败")
    by_category = corrected(before, category=Category.CARD_BINDING)
    assert (by_category.queue, by_category.priority, by_category.confidence) == (Queue.ACCESS, Priority.P2, 1.0)
    by_queue = corrected(before, queue=Queue.TECHNICAL)
    assert (by_queue.queue, by_queue.category) == (Queue.TECHNICAL, Category.PAYMENT_FAILED)
    both = corrected(before, queue=Queue.TRIAGE, category=Category.OTHER, priority=Priority.P4)
    assert (both.queue, both.category, both.priority) == (Queue.TRIAGE, Category.OTHER, Priority.P4)


def test_a_pinned_ticket_is_not_moved_and_urgent_news_still_raise_it() -> None:
    pinned = corrected(opened("付款失败"), category=Category.CARD_BINDING, priority=Priority.P4)
    again = follow(pinned, "付款还是失败", 1).state
    assert (again.category, again.queue, again.priority) == (Category.CARD_BINDING, Queue.ACCESS, Priority.P4)
    threat = follow(again, "再不处理我找律师", 2).state
    assert (threat.category, threat.priority) == (Category.CARD_BINDING, Priority.P3)
    stolen = follow(threat, "我的账户被盗刷了！", 3)
    assert (stolen.state.category, stolen.state.priority) == (Category.CARD_BINDING, Priority.P1)


def test_a_priority_alone_does_not_pin_the_category() -> None:
    lowered = corrected(opened("怎么联系人工客服"), priority=Priority.P3)
    assert follow(lowered, "转账没到账", 1).state.category is Category.MISSING_FUNDS
