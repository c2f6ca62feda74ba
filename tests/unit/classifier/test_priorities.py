"""The table of priority rules, row by row, and what cannot be written into it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.classifier.domain.decide import Classifier, Decision, Message
from services.classifier.domain.rulebook import PRIORITIES, load_rulebook
from shared.taxonomy import Channel, Priority
from shared.yaml_files import ConfigError

CLASSIFIER = Classifier()
SENT_AT = datetime(2026, 11, 5, 10, 0, tzinfo=timezone(timedelta(hours=8)))


def decide(text: str, **more: Any) -> Decision:
    return CLASSIFIER.classify(Message(text, sent_at=SENT_AT, **more))


TABLE: list[tuple[str, dict[str, Any], str, dict[str, str]]] = [
    # text, what else is known, priority, rules and effects beside `start`
    ("付款失败", {}, "P2", {}),
    # harm going on
    ("我的账户刚刚被盗刷", {}, "P1", {"harm_now": "=P1"}),
    ("上个月账户被盗刷过", {}, "P1", {}),
    ("请马上冻结我的账户，被盗了", {}, "P1", {"harm_now": "=P1"}),
    # danger to life, in any category
    ("优惠券没了我不想活了", {}, "P1", {"danger_to_life": "=P1"}),
    ("I want to kill myself", {}, "P1", {"danger_to_life": "=P1"}),
    # a threat
    ("退款再不处理我就找律师", {}, "P2", {"threat": "+1"}),
    ("refund me or I call my lawyer", {}, "P2", {"threat": "+1"}),
    # third contact, in words
    ("退款的事我已经打了三次电话", {}, "P2", {"repeated_contact": "+1"}),
    ("refund: this is the third time I write", {}, "P2", {"repeated_contact": "+1"}),
    # much at stake
    ("我要退款5000元", {}, "P2", {"much_at_stake": "+1"}),
    ("我要退款4999元", {}, "P3", {}),
    ("I want a refund of $700", {}, "P2", {"much_at_stake": "+1"}),
    ("I want a refund of $699", {}, "P3", {}),
    ("I want a refund of 650 EUR", {}, "P2", {"much_at_stake": "+1"}),  # 650 x 7.8 = 5070 CNY
    # VIP
    ("我要退款", {"vip": True}, "P2", {"vip": "+1"}),
    # voice or anger: once, and never to P1 by itself
    ("我要退款", {"channel": Channel.PHONE}, "P2", {"voice_or_anger": "+1"}),
    ("垃圾软件，我要退款", {"channel": Channel.PHONE}, "P2", {"voice_or_anger": "+1"}),
    ("付款失败，垃圾软件", {"channel": Channel.PHONE}, "P2", {"voice_or_anger": "+0"}),
    ("付款失败，垃圾软件", {"vip": True}, "P1", {"vip": "+1", "voice_or_anger": "+1"}),
    # only a question
    ("怎么提现", {}, "P3", {"question_only": "-1"}),
    ("如果资金被盗怎么办", {}, "P2", {"question_only": "-1"}),
    ("为什么提现失败", {}, "P2", {}),
    ("怎么领优惠券", {}, "P4", {}),  # P4 is no P1 or P2 to step down from
    # a suspicion without harm
    ("收到可疑短信，是不是诈骗", {}, "P2", {"suspicion_only": "-1"}),
    ("收到可疑短信，我的钱被转走了", {}, "P1", {"harm_now": "=P1"}),
    # ... is a case of his own, however he asks about it: one step, not two
    ("A strange call came, I hung up. What should I do?", {}, "P2", {"suspicion_only": "-1"}),
    ("Is this phishing? The mail asks for my PIN", {}, "P2", {"suspicion_only": "-1"}),
    ("接到陌生电话，我该怎么办？", {}, "P2", {"suspicion_only": "-1"}),
    ("如果接到陌生电话该怎么办？", {}, "P2", {"question_only": "-1"}),
    ("What should I do if I get a suspicious call?", {}, "P2", {"question_only": "-1"}),
    # a trifle
    ("付款失败，19元", {}, "P3", {"trifle": "-1"}),
    ("付款失败，20元", {}, "P2", {}),
    ("my payment of $2.50 failed", {}, "P3", {"trifle": "-1"}),
    ("my payment of $3 failed", {}, "P2", {}),
    # they add up, and stop at P1 and P4
    ("我要退款8000元，再不退找律师", {"vip": True}, "P1", {"much_at_stake": "+1", "threat": "+1", "vip": "+1"}),
    ("优惠券面值5元", {}, "P4", {"trifle": "-1"}),
]


@pytest.mark.parametrize(("text", "more", "priority", "rules"), TABLE, ids=[row[0] for row in TABLE])
def test_the_table(text: str, more: dict[str, Any], priority: str, rules: dict[str, str]) -> None:
    decision = decide(text, **more)
    assert {reason.rule: reason.effect for reason in decision.reasons[1:]} == rules
    assert decision.priority == priority
    assert decision.reasons[0].rule == "start"


def test_a_reason_names_the_amount() -> None:
    details = {reason.rule: reason.detail for reason in decide("我要退款8000元").reasons}
    assert details["much_at_stake"] == "much at stake: 8000 CNY"
    assert details["start"] == "refund"


def with_priorities(tmp_path: Path, change: dict[str, Any]) -> Classifier:
    data = yaml.safe_load(PRIORITIES.read_text(encoding="utf-8"))
    for key, value in change.items():
        data[key] = {**data[key], **value} if isinstance(value, dict) else value
    changed = tmp_path / "priorities.yaml"
    changed.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    return Classifier(load_rulebook(changed))


def test_a_brand_switches_rules_off_and_has_amounts_of_its_own(tmp_path: Path) -> None:
    brands = {"upay": {"off": ["vip"], "amounts": {"high": {"CNY": 10000}}}}
    classifier = with_priorities(tmp_path, {"brands": brands})
    text = "我要退款8000元"
    assert classifier.classify(Message(text, brand="upay", vip=True)).priority is Priority.P3
    assert classifier.classify(Message(text, brand="topay", vip=True)).priority is Priority.P1


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"effect": "+2", "when": {"vip": True}}, "effect"),
        ({"effect": "+1", "when": {}}, "names no condition"),
        ({"effect": "+1", "when": {"weather": "bad"}}, "weather"),
        ({"effect": "+1", "when": {"concepts": "no_such_concept"}}, "no_such_concept"),
        ({"effect": "+1", "when": {"amount_from": "huge"}}, "huge"),
        ({"effect": "-1", "alone": False, "when": {"vip": True}}, "alone"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused_by_name(tmp_path: Path, rule: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        with_priorities(tmp_path, {"rules": {"new_rule": rule}})
    assert "priorities.yaml" in str(refused.value)


def test_a_brand_cannot_switch_off_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no_such_rule"):
        with_priorities(tmp_path, {"brands": {"upay": {"off": ["no_such_rule"]}}})
