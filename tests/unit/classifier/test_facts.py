"""What the customer told, normalised: money, times, identifiers, and what is missing."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from services.classifier.domain.decide import Classifier, Decision, Message
from services.classifier.domain.facts import accumulate
from services.classifier.domain.facts.numbers import chinese
from shared.events import Facts
from shared.taxonomy import Fact

CLASSIFIER = Classifier()
# A Thursday morning in Shanghai.
SENT_AT = datetime(2026, 11, 5, 10, 0, tzinfo=timezone(timedelta(hours=8)))


def decide(text: str, sent_at: datetime | None = SENT_AT, **more: object) -> Decision:
    return CLASSIFIER.classify(Message(text, sent_at=sent_at, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "amount", "currency"),
    [
        ("充值两千块没到账", "2000", "CNY"),
        ("transferred 5k and it failed", "5000", None),
        ("扣了我¥1,299.00", "1299.00", "CNY"),
        ("￥８８元", "88", "CNY"),
        ("转了1.5万元", "15000", "CNY"),
        ("充值2万5没到", "25000", "CNY"),
        ("一万二没到账", "12000", "CNY"),
        ("三百五十块的订单", "350", "CNY"),
        ("两块五", "2.5", "CNY"),
        ("20块5", "20.5", "CNY"),
        ("少了5毛钱", "0.5", "CNY"),
        ("300多块不见了", "300", "CNY"),
        ("被骗走九千", "9000", "CNY"),
        ("消费60000查询明细", "60000", "CNY"),
        ("I was charged $20 twice", "20", "USD"),
        ("500€ are gone", "500", "EUR"),
        ("paid 20 pounds", "20", "GBP"),
        ("HK$300未到账", "300", "HKD"),
        ("USD 1,000.50 missing", "1000.50", "USD"),
        ("a refund of 1,000", "1000", None),
        # Of several the largest: the fee is told beside the sum.
        ("手续费2块，提现5000元没到账", "5000", "CNY"),
        # No money: counts, waiting, phone numbers, order numbers, masked numbers.
        ("打了5次电话，等了3天", None, None),
        ("第3次找你们了", None, None),
        ("等了三万年", None, None),
        ("手机13800138000", None, None),
        ("卡号尾号***0000", None, None),
    ],
)
def test_money(text: str, amount: str | None, currency: str | None) -> None:
    facts = decide(text).facts
    assert (facts.amount, facts.currency) == (amount, currency)


@pytest.mark.parametrize(
    ("written", "value"),
    [("两千五", 2500), ("三十", 30), ("十五", 15), ("一百零五", 105), ("一万二", 12000), ("三百五", 350),
     ("二〇二六", 2026), ("一亿两千万", 120_000_000), ("二十", 20), ("一千零五十", 1050)],
)  # fmt: skip
def test_chinese_numbers(written: str, value: int) -> None:
    assert chinese(written) == value


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("昨天下午三点转账失败", "2026-11-04T15:00+08:00"),
        ("昨天下午三点多转账失败", "2026-11-04T15:00+08:00"),
        ("11月3日充值失败", "2026-11-03"),
        ("十一月三号充值失败", "2026-11-03"),
        ("12月25日充值失败", "2025-12-25"),  # the last one, not the next
        ("2026年10月1日", "2026-10-01"),
        ("昨晚7:40左右付款", "2026-11-04T19:40+08:00"),
        ("上周五晚上8点半", "2026-10-30T20:30+08:00"),
        ("今天早上八点一刻", "2026-11-05T08:15+08:00"),
        ("前天", "2026-11-03"),
        ("三天前", "2026-11-02"),
        ("半小时前", "2026-11-05T09:30+08:00"),
        ("12号晚上十一点", "2026-10-12T23:00+08:00"),
        ("下午3点", "2026-11-04T15:00+08:00"),  # written in the morning: yesterday's
        ("yesterday at 3pm", "2026-11-04T15:00+08:00"),
        ("at 9:15 am today", "2026-11-05T09:15+08:00"),
        ("on Nov 3rd", "2026-11-03"),
        ("3rd of November 2025", "2025-11-03"),
        ("2026-11-01 14:05:33", "2026-11-01T14:05+08:00"),
        ("two days ago", "2026-11-03"),
        ("3 hours ago", "2026-11-05T07:00+08:00"),
        ("last Tuesday", "2026-11-03"),
        ("上个月付款失败", "上个月"),
        ("13月45日", "13月45日"),
        ("没有说时间", None),
    ],
)
def test_times_are_resolved_against_the_time_of_sending(text: str, time: str | None) -> None:
    assert decide(text).facts.time == time


@pytest.mark.parametrize("text", ["昨天下午三点", "11月3日", "yesterday at 3pm"])
def test_without_a_time_of_sending_the_words_stay(text: str) -> None:
    assert decide(f"{text}", sent_at=None).facts.time == text


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("订单号：AB20261103001 付款失败", "order_no", "AB20261103001"),
        ("transaction id #TX-998877 failed", "order_no", "TX-998877"),
        ("2026110322001156789012", "order_no", "2026110322001156789012"),
        ("我的手机是138 0013 8000", "phone", "+8613800138000"),
        ("call me at +44 7911 123456", "phone", "+447911123456"),
        ("邮箱是 Li.Ming@Example.com", "email", "li.ming@example.com"),
        ("闪退，iPhone 13 Pro，iOS 17.1", "device", "iPhone 13 Pro, iOS 17.1"),
        ("华为mate60打不开", "device", "华为mate60"),
        ("用huawei pay付款失败", "device", None),
        ("报错10000Z8", "error_code", "10000Z8"),
        ("error code e1001", "error_code", "E1001"),
        ("提示RISK_CHECK_FAIL", "error_code", "RISK_CHECK_FAIL"),
        ("发卡行权限受限[1000061]", "error_code", "1000061"),
        ("优惠码 1234567 用不了", "error_code", None),
        ("app版本3.2.1闪退", "app_version", "3.2.1"),
        ("支付宝充值失败", "method", "alipay"),
        ("paid with my credit card", "method", "credit_card"),
        ("在美团买的", "merchant", "Meituan"),
        ("promo code save20 is refused", "campaign", "SAVE20"),
        ("双十一活动红包没到", "campaign", "double_11"),
    ],
)
def test_identifiers(text: str, field: str, value: str | None) -> None:
    assert getattr(decide(text).facts, field) == value


def test_a_fact_tells_where_it_was_said() -> None:
    text = "昨天充值两千块失败，订单号AB123456"
    for fact in decide(text).found_facts:
        assert 0 <= fact.start < fact.end <= len(text)
    places = {fact.field: text[fact.start : fact.end] for fact in decide(text).found_facts}
    assert places["amount"] == "两千块"
    assert places["time"] == "昨天"
    assert places["order_no"] == "AB123456"


def test_what_is_missing_is_what_the_category_needs_and_was_not_told() -> None:
    assert decide("充值失败").missing == (Fact.TIME, Fact.AMOUNT, Fact.METHOD, Fact.ORDER_NO)
    told = "昨天用支付宝充值200元失败，订单号AB123456"
    assert decide(told).missing == ()
    assert decide("登录不上").missing == (Fact.CONTACT,)
    assert decide("登录不上", contact_known=True).missing == ()
    assert decide("The app crashes").missing == (Fact.DEVICE, Fact.APP_VERSION, Fact.ERROR_CODE)
    assert decide("The app crashes", has_attachments=True).missing == (Fact.DEVICE, Fact.APP_VERSION)
    assert decide("每天限额多少").missing == ()


def test_facts_add_up_over_messages() -> None:
    before = Facts(amount="20", currency="USD", method="visa")
    assert accumulate(before, Facts(time="2026-11-04")) == before.model_copy(update={"time": "2026-11-04"})
    assert accumulate(before, Facts(amount="25")).model_dump(exclude_none=True) == {
        "amount": "25",
        "currency": "USD",
        "method": "visa",
    }
