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
from tests.support.brands import write_brand

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
    ("上周账户被盗刷", {}, "P1", {}),
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
    ("收到釣魚短訊，冇撳入去", {}, "P2", {"suspicion_only": "-1"}),
    ("收到奇怪短信，没有点链接", {}, "P2", {"suspicion_only": "-1"}),
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


# Words that raise, and the same words meant otherwise: text, rule, whether it applies.
MEANT: list[tuple[str, str, bool]] = [
    # danger to life; not the figures of speech
    ("準備輕生了", "danger_to_life", True),
    ("我唔想做人喇", "danger_to_life", True),
    ("想结束自己的生命", "danger_to_life", True),
    ("再不还钱我就跳楼", "danger_to_life", True),
    ("这是我的救命钱，求你们", "danger_to_life", True),
    ("我想死的心都有了", "danger_to_life", True),  # mostly said lightly: a person shall look all the same
    ("there is no reason to live", "danger_to_life", True),
    ("better off dead", "danger_to_life", True),
    ("ending my life over this", "danger_to_life", True),
    ("笑死我了这个系统", "danger_to_life", False),
    ("累死了，打电话没人接", "danger_to_life", False),
    ("卡死了，点什么都没反应", "danger_to_life", False),
    ("救命啊充值没到账", "danger_to_life", False),
    ("跳楼价红包没到", "danger_to_life", False),
    ("I'm dying to know when it arrives", "danger_to_life", False),
    ("this app is killing me", "danger_to_life", False),
    ("my phone died during payment", "danger_to_life", False),
    ("suicide prevention donation failed", "danger_to_life", False),
    # a threat; not a court, lawyer or authority that is only named
    ("我要去银保监投诉你们", "threat", True),
    ("打12315举报你们", "threat", True),
    ("我去消协投诉", "threat", True),
    ("向央行投诉", "threat", True),
    ("我會向金管局投訴", "threat", True),
    ("再不处理我起诉你们", "threat", True),
    ("再不退款就法院见", "threat", True),
    ("律师函已经准备好了", "threat", True),
    ("我要告你们", "threat", True),
    ("我要报警", "threat", True),
    ("我会找媒体曝光你们", "threat", True),
    ("发到微博小红书上曝光", "threat", True),
    ("I will report you to the FCA", "threat", True),
    ("I'll take this to the ombudsman", "threat", True),
    ("trading standards will hear about this", "threat", True),
    ("see you in court", "threat", True),
    ("I'm going to sue you", "threat", True),
    ("my solicitor will write to you", "threat", True),
    ("I will go to the press", "threat", True),
    ("法院冻结了我的账户怎么办", "threat", False),
    ("花呗逾期会起诉我吗", "threat", False),
    ("收到律师函怎么办", "threat", False),
    ("律师费支付不成功", "threat", False),
    ("骗子说自己是银保监会的", "threat", False),
    ("诈骗犯冒充央行给我打电话", "threat", False),
    ("公安认证失败", "threat", False),
    ("钱在监管账户里", "threat", False),
    ("曝光度太低的活动", "threat", False),
    ("怎么没有媒体播放声音", "threat", False),
    ("my lawyer's invoice could not be paid", "threat", False),
    ("court fee payment failed", "threat", False),
    ("a man claiming to be from the FCA called me", "threat", False),
    ("he threatened to sue me unless I paid him", "threat", False),
    ("I press pay and nothing happens", "threat", False),
    ("saw your ad on social media, coupon fails", "threat", False),
    ("police fine payment failed", "threat", False),
    # the third contact; not the second, and not what was tried three times
    ("第三次了，还不处理", "repeated_contact", True),
    ("打了N次电话", "repeated_contact", True),
    ("打了十几个电话", "repeated_contact", True),
    ("打了8次电话了", "repeated_contact", True),
    ("打咗三次電話俾你哋", "repeated_contact", True),
    ("已經第四次聯絡客服", "repeated_contact", True),
    ("我已经催了四遍", "repeated_contact", True),
    ("发了三封邮件没人回", "repeated_contact", True),
    ("一而再再而三地找你们", "repeated_contact", True),
    ("I've contacted you three times already", "repeated_contact", True),
    ("sent you 3 emails and no reply", "repeated_contact", True),
    ("I have called again and again", "repeated_contact", True),
    ("打了两次电话", "repeated_contact", False),
    ("第二次打电话", "repeated_contact", False),
    ("试了三次都付款失败", "repeated_contact", False),
    ("连续三次扣款", "repeated_contact", False),
    ("this is my second email", "repeated_contact", False),
    ("the payment failed for the third time", "repeated_contact", False),
    ("I was charged three times and no refund", "repeated_contact", False),
    ("it fails again and again", "repeated_contact", False),
    ("how many times can I withdraw per day", "repeated_contact", False),
    ("I entered the wrong pin too many times and now it is blocked", "repeated_contact", False),
    # anger; not its words
    ("太让人生气了", "voice_or_anger", True),
    ("你们是骗子公司吗", "voice_or_anger", True),
    ("他妈的又失败", "voice_or_anger", True),
    ("呢個app真係垃圾", "voice_or_anger", True),
    ("滚蛋", "voice_or_anger", True),
    ("快点处理!!", "voice_or_anger", True),
    ("this is bullshit", "voice_or_anger", True),
    ("shame on you", "voice_or_anger", True),
    ("垃圾短信太多", "voice_or_anger", False),
    ("回收垃圾缴费失败", "voice_or_anger", False),
    ("我妈的手机丢了", "voice_or_anger", False),
    ("他妈妈的账户登不上", "voice_or_anger", False),
    ("没有生气，就是问问", "voice_or_anger", False),
    ("页面滚动不了", "voice_or_anger", False),
    ("谢谢!!", "voice_or_anger", False),
    ("Thanks!!", "voice_or_anger", False),
    ("I'm not angry, just asking how to pay", "voice_or_anger", False),
    ("Angry Birds top up failed", "voice_or_anger", False),
    # sums on the edge, in many currencies; 5,000 CNY or its worth, and 20 CNY
    ("提现4999.99元失败", "much_at_stake", False),
    ("提现五千块失败", "much_at_stake", True),
    ("退款一万二", "much_at_stake", True),
    ("10万日元退款", "much_at_stake", False),  # x 0.048 = 4800 CNY
    ("12万日元退款", "much_at_stake", True),  # 5760
    ("refund of HK$5,300", "much_at_stake", False),  # x 0.92 = 4876
    ("refund of HK$5,500", "much_at_stake", True),  # 5060
    ("refund of £540", "much_at_stake", False),  # x 9.1 = 4914
    ("refund of £550", "much_at_stake", True),  # 5005
    ("refund RM3,200", "much_at_stake", True),  # x 1.6 = 5120
    ("refund NT$20,000", "much_at_stake", False),  # x 0.22 = 4400
    ("refund of ₹70,000", "much_at_stake", True),  # x 0.085 = 5950
    ("refund of 5k", "much_at_stake", True),  # of whatever: much in CNY and in USD
    ("refund of 4.9k", "much_at_stake", False),
    ("付款失败，八毛", "trifle", True),
    ("付款失败，19.99元", "trifle", True),
    ("payment of £2 failed", "trifle", True),  # 18.2
    ("payment of £3 failed", "trifle", False),  # 27.3
    ("payment of ¥300 yen failed", "trifle", True),  # 14.4
    ("payment of RM20 failed", "trifle", False),  # 32
    ("payment of 2 failed", "trifle", False),  # of what?
]


@pytest.mark.parametrize(("text", "rule", "applies"), MEANT, ids=[row[0] for row in MEANT])
def test_a_word_counts_where_it_is_meant(text: str, rule: str, applies: bool) -> None:
    assert (rule in {reason.rule for reason in decide(text).reasons}) is applies


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
    own = {"off": ["vip"], "amounts": {"high": {"CNY": 10000}}}
    classifier = Classifier(load_rulebook(brands=write_brand(tmp_path, priorities=own)))
    text = "我要退款8000元"
    assert classifier.classify(Message(text, brand="some_brand", vip=True)).priority is Priority.P3
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


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"off": ["vip", "no_such_rule"]}, r"priorities\.off: no such rule: no_such_rule"),
        ({"amounts": {"huge": {"CNY": 1}}}, r"priorities\.amounts\.huge: no such amount"),
        ({"rules": {}}, r"priorities\.rules: Extra inputs"),
    ],
)
def test_a_brand_cannot_change_what_is_not_there(tmp_path: Path, own: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"some_brand\.yaml:\d+: {said}"):
        load_rulebook(brands=write_brand(tmp_path, priorities=own))
