"""What the customer told, normalised: money, times, identifiers, and what is missing."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.classifier.domain.decide import Classifier, Decision, Message
from services.classifier.domain.facts import accumulate, missing
from services.classifier.domain.facts.numbers import chinese
from shared.events import Facts
from shared.taxonomy import Category, Fact

CLASSIFIER = Classifier()
# A Thursday morning in Shanghai.
SENT_AT = datetime(2026, 11, 5, 10, 0, tzinfo=timezone(timedelta(hours=8)))


def place(decision: Decision, field: str, text: str) -> str | None:
    """What of the text was taken for the fact."""
    return next((text[fact.start : fact.end] for fact in decision.found_facts if fact.field == field), None)


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


# Text, amount, currency, and where it is told.
MONEY = [
    ("三千五没到账", "3500", "CNY", "三千五"),
    ("转账1w没到", "10000", "CNY", "1w"),
    ("充了2.3万，余额没变", "23000", "CNY", "2.3万"),
    ("一千零五十块不见了", "1050", "CNY", "一千零五十块"),
    ("被扣了两百来块", "200", "CNY", "两百来块"),
    ("扣了两三百块", "200", "CNY", "两三百块"),
    ("扣了两三块钱", "2", "CNY", "两三块钱"),
    ("十几块钱", "10", "CNY", "十几块钱"),
    ("被骗两万多", "20000", "CNY", "两万多"),
    ("1万2千元没到账", "12000", "CNY", "1万2千元"),
    ("3万5千被骗", "35000", "CNY", "3万5千"),
    ("多扣了两块八毛", "2.8", "CNY", "两块八毛"),
    ("多扣3块8毛5", "3.85", "CNY", "3块8毛5"),
    ("三块半", "3.5", "CNY", "三块半"),
    ("人民币叁仟伍佰元整", "3500", "CNY", "人民币叁仟伍佰元"),
    ("金额是2680，一直不到账", "2680", "CNY", "2680"),
    ("金额：3,500.00", "3500.00", "CNY", "3,500.00"),
    ("还款1500显示失败", "1500", "CNY", "1500"),
    ("转给朋友500没到", "500", "CNY", "500"),
    ("花了99.9包邮买的", "99.9", "CNY", "99.9"),
    ("扣款￥1，299.00", "1299.00", "CNY", "￥1，299.00"),
    ("充值500，100块没到账", "500", "CNY", "500"),  # the comma parts two clauses
    ("充值¥100，20分钟还没到", "100", "CNY", "¥100"),
    ("¥ 1 299 没退", "1299", "CNY", "¥ 1 299"),
    ("轉帳五百蚊未到", "500", "HKD", "五百蚊"),
    ("轉帳港幣800元失敗", "800", "HKD", "港幣800元"),
    ("港元1200没到账", "1200", "HKD", "港元1200"),
    ("新台幣五百元沒有退", "500", "TWD", "新台幣五百元"),
    ("五百塊沒退", "500", "CNY", "五百塊"),
    ("充值一百美元失败", "100", "USD", "一百美元"),
    ("充值RM50失败", "50", "MYR", "RM50"),
    ("充值500块app没反应", "500", "CNY", "500块"),
    ("充值2万app没反应", "20000", "CNY", "2万"),
    ("RMB 450 not received", "450", "CNY", "RMB 450"),
    ("my HK$1,200 transfer is missing", "1200", "HKD", "HK$1,200"),
    ("HK$20 dollars", "20", "HKD", "HK$20 dollars"),
    ("$500 AUD missing", "500", "AUD", "$500 AUD"),
    ("¥300 yen payment failed", "300", "JPY", "¥300 yen"),
    ("NT$500 沒入帳", "500", "TWD", "NT$500"),
    ("lost a grand because of you", "1000", None, "a grand"),
    ("2 grand taken", "2000", None, "2 grand"),
    ("you charged me twenty quid", "20", "GBP", "twenty quid"),
    ("two thousand five hundred dollars disappeared", "2500", "USD", "two thousand five hundred dollars"),
    ("I lost fifteen hundred bucks", "1500", "USD", "fifteen hundred bucks"),
    ("a charge of one pound", "1", "GBP", "one pound"),
    ("a one pound fee", "1", "GBP", "one pound"),
    ("a couple hundred dollars", "200", "USD", "a couple hundred dollars"),
    ("half a million dollars", "500000", "USD", "half a million dollars"),
    ("2 lakh rupees debited", "200000", "INR", "2 lakh rupees"),
    ("₹5,00,000 debited from my account", "500000", "INR", "₹5,00,000"),
    ("charged 1 299,00 €", "1299.00", "EUR", "1 299,00 €"),
    ("€1.299,00 gone", "1299.00", "EUR", "€1.299,00"),
    ("paid €49,90 and no refund", "49.90", "EUR", "€49,90"),
    ("充值€100，20分钟还没到", "100", "EUR", "€100"),
    ("Rp 50.000 not received", "50000", "IDR", "Rp 50.000"),
    ("PHP 1,500 cash in not credited", "1500", "PHP", "PHP 1,500"),
    ("50 cents missing", "0.5", "USD", "50 cents"),
    ("50p short", "0.5", "GBP", "50p"),
    ("top up 200 failed", "200", None, "200"),
    ("charged me 89.99 twice", "89.99", None, "89.99"),
    ("paid 200 this morning", "200", None, "200"),
]


@pytest.mark.parametrize(("text", "amount", "currency", "told"), MONEY, ids=[row[0] for row in MONEY])
def test_money_and_where_it_is_told(text: str, amount: str, currency: str | None, told: str) -> None:
    decision = decide(text)
    assert (decision.facts.amount, decision.facts.currency) == (amount, currency)
    assert place(decision, "amount", text) == told


@pytest.mark.parametrize(
    "text",
    [
        # no number of anything
        "转了好几千块钱", "转了几百块", "a few hundred dollars", "hundreds of dollars", "not worth a dollar",
        "一分钱都没到账", "一块钱都没退", "一毛钱都没退",
        # counts and waiting
        "我有两千多个好友", "五千多人", "付了3单都失败", "花了500积分换的券", "sent 3 emails to support",
        "transferred 2 payments", "lost 10k points", "waited 3w for my refund", "试了20次都不行",
        # other numbers
        "打12315投诉你们", "卡尾号6688充值失败", "提示[2020003]付款失败", "ios 17.4 扫码付款失败",
        "error 403 when I pay", "2026元旦充值失败", "3月5日转账没到", "charged on 11/3", "card ending 4421 was charged",
        "payment 2 of 3 failed",
        # words that also mean money
        "和朋友一块充值，钱都没到账", "the grand total is wrong", "I won 500 in the lucky draw",
        "a thousand times worse",
    ],
)  # fmt: skip
def test_no_money(text: str) -> None:
    facts = decide(text).facts
    assert (facts.amount, facts.currency) == (None, None)


@pytest.mark.parametrize(
    ("written", "value"),
    [("两千五", 2500), ("三十", 30), ("十五", 15), ("一百零五", 105), ("一万二", 12000), ("三百五", 350),
     ("二〇二六", 2026), ("一亿两千万", 120_000_000), ("二十", 20), ("一千零五十", 1050), ("廿三", 23),
     ("一千零五", 1005), ("两三百", 200), ("七八千", 7000), ("十七八", 17), ("三五", 3), ("一百二三十", 120)],
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


# Text, time, and where it is told.
TIMES = [
    ("前天晚上充值", "2026-11-03", "前天晚上"),
    ("今天一点都登不上", "2026-11-05", "今天"),
    ("昨天下午两三点", "2026-11-04T14:00+08:00", "昨天下午两三点"),
    ("尋日下晝三點過數", "2026-11-04T15:00+08:00", "尋日下晝三點"),
    ("琴日充值", "2026-11-04", "琴日"),
    ("今朝八點", "2026-11-05T08:00+08:00", "今朝八點"),
    ("昨下午三点", "2026-11-04T15:00+08:00", "昨下午三点"),
    ("五点还没扣款", "2026-11-05T05:00+08:00", "五点"),
    ("大前天提现到现在没到", "2026-11-02", "大前天"),
    ("凌晨两点被转走", "2026-11-05T02:00+08:00", "凌晨两点"),
    # What is behind the midnight of an evening is the next day's.
    ("昨晚12点付款", "2026-11-05T00:00+08:00", "昨晚12点"),
    ("昨晚一点转的", "2026-11-05T01:00+08:00", "昨晚一点"),
    ("今天半夜两点被刷", "2026-11-05T02:00+08:00", "今天半夜两点"),
    ("半夜11点", "2026-11-04T23:00+08:00", "半夜11点"),
    ("昨天凌晨12点", "2026-11-04T00:00+08:00", "昨天凌晨12点"),
    ("last night around 11", "2026-11-04T23:00+08:00", "last night around 11"),
    ("last night at 1:30", "2026-11-05T01:30+08:00", "last night at 1:30"),
    ("yesterday evening at 8:30", "2026-11-04T20:30+08:00", "yesterday evening at 8:30"),
    ("8.30pm yesterday", "2026-11-04T20:30+08:00", "8.30pm yesterday"),
    ("Monday morning at 8", "2026-11-02T08:00+08:00", "Monday morning at 8"),
    ("yesterday at 3 in the afternoon", "2026-11-04T15:00+08:00", "yesterday at 3 in the afternoon"),
    ("yesterday at 3", "2026-11-04", "yesterday"),  # of the morning or the afternoon?
    ("yesterday at noon", "2026-11-04T12:00+08:00", "yesterday at noon"),
    ("yesterday around 3pm my payment failed", "2026-11-04T15:00+08:00", "yesterday around 3pm"),
    # Day and month either way round: the later that has been.
    ("3/11付的款", "2026-11-03", "3/11"),
    ("paid 03/11/2026", "2026-11-03", "03/11/2026"),
    ("paid 11/03/2026", "2026-11-03", "11/03/2026"),
    ("paid 25/10/2026", "2026-10-25", "25/10/2026"),
    ("paid on 28.10.2026", "2026-10-28", "28.10.2026"),
    ("11.3号充值", "2026-11-03", "11.3号"),
    ("20261103付款", "2026-11-03", "20261103"),
    ("2026/11/03 14:20:33 付款", "2026-11-03T14:20+08:00", "2026/11/03 14:20:33"),
    ("2026-11-03T14:20:00Z", "2026-11-03T22:20+08:00", "2026-11-03T14:20:00Z"),
    ("I paid on the 3rd", "2026-11-03", "on the 3rd"),
    ("Nov 3付款失败", "2026-11-03", "Nov 3"),
    ("上个月20号付款", "2026-10-20", "上个月20号"),
    ("本月2号", "2026-11-02", "本月2号"),
    ("去年12月5日", "2025-12-05", "去年12月5日"),
    ("廿三号", "2026-10-23", "廿三号"),
    ("国庆那天充值", "2026-10-01", "国庆那天"),
    ("双十一那天付的", "2025-11-11", "双十一那天"),
    ("on Christmas Day I paid", "2025-12-25", "on Christmas Day"),
    ("上上周三付款", "2026-10-21", "上上周三"),
    ("禮拜二轉帳", "2026-11-03", "禮拜二"),
    ("last Friday I topped up", "2026-10-30", "last Friday"),
    ("1.5小时前", "2026-11-05T08:30+08:00", "1.5小时前"),
    ("三个半小时前", "2026-11-05T06:30+08:00", "三个半小时前"),
    ("半個鐘頭前", "2026-11-05T09:30+08:00", "半個鐘頭前"),
    ("half an hour ago", "2026-11-05T09:30+08:00", "half an hour ago"),
    ("twenty minutes ago", "2026-11-05T09:40+08:00", "twenty minutes ago"),
    ("I decided 2 days ago", "2026-11-03", "2 days ago"),
    ("a couple days ago", "2026-11-03", "a couple days ago"),
    ("一个月前", "2026-10-05", "一个月前"),
    ("半个月前", "2026-10-21", "半个月前"),
    ("剛剛被盜刷", "2026-11-05T10:00+08:00", "剛剛"),
    ("刚被盗刷", "2026-11-05T10:00+08:00", "刚"),
    # No day can be told: the words.
    ("两三天前", "两三天前", "两三天前"),
    ("几个小时前", "几个小时前", "几个小时前"),
    ("a few days ago", "a few days ago", "a few days ago"),
    ("10月份充值的", "10月份", "10月份"),
    ("in October I paid", "in October", "in October"),
    ("去年12月", "去年12月", "去年12月"),
]


@pytest.mark.parametrize(("text", "time", "told"), TIMES, ids=[row[0] for row in TIMES])
def test_times_and_where_they_are_told(text: str, time: str, told: str) -> None:
    decision = decide(text)
    assert decision.facts.time == time
    assert place(decision, "time", text) == told


@pytest.mark.parametrize(
    "text",
    [
        # points, not o'clock
        "有一点问题", "快一点处理", "晚一点到账", "两点要求：退款、道歉", "有3点建议", "一时着急转错了",
        "1号店买的东西", "订单5号", "3号窗口", "登陆号",
        "一周一次", "每周三都扣款", "下周三到账吗", "周一到周五", "every Monday it fails", "next Friday",
        "this month", "on Monzo I paid", "where is my last money transaction", "I may 3 times try", "market 3 shops",
        "24/7 support is a lie", "1/2 of the money is gone", "50/50", "version 10.3.2026", "on the 3rd attempt",
        "订单号20261103001没到", "in the sun my phone is hot",
    ],
)  # fmt: skip
def test_no_time(text: str) -> None:
    assert decide(text).facts.time is None


@pytest.mark.parametrize(
    ("text", "latest"),
    [
        ("上周被盗刷", "2026-11-01"),
        ("上上周", "2026-10-25"),
        ("上个月被盗刷", "2026-10-31"),
        ("last year", "2025-12-31"),
        ("两三天前", "2026-11-03"),
        ("10月份", "2026-10-31"),
        ("几个小时前", "2026-11-05"),
    ],
)
def test_what_is_vague_is_at_least_so_old(text: str, latest: str) -> None:
    happened_at = decide(text).situation.happened_at
    assert happened_at is not None
    assert happened_at.date().isoformat() == latest


def test_without_a_time_of_sending_a_date_that_reads_two_ways_stays_as_told() -> None:
    assert decide("paid 03/11/2026", sent_at=None).facts.time == "03/11/2026"
    assert decide("paid 25/10/2026", sent_at=None).facts.time == "2026-10-25"


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
        ("流水号是 TX20261103ABC", "order_no", "TX20261103ABC"),
        ("訂單號碼 HK20261103-77", "order_no", "HK20261103-77"),
        ("order cancelled 3 days ago", "order_no", None),
        ("+852 9123 4567 收不到验证码", "phone", "+85291234567"),
        ("我电话系+852-6123-4567", "phone", "+85261234567"),
        ("0086 13800138000", "phone", "+8613800138000"),
        ("１３８００１３８０００", "phone", "+8613800138000"),
        ("+44 (0)20 7946 0958", "phone", "+442079460958"),
        ("call +1 (415) 555-2671", "phone", "+14155552671"),
        ("手機號碼 91234567", "phone", "91234567"),  # of which country is not told
        ("my phone 07911 123456", "phone", "07911123456"),
        ("+1 2 3 4", "phone", None),
        ("打了12315", "phone", None),
        ("Samsung Galaxy S24 Ultra, Android 14", "device", "Samsung Galaxy S24 Ultra, Android 14"),
        ("苹果15闪退", "device", "苹果15"),
        ("小米商城买的东西", "device", None),
        ("我在华为店付款失败", "device", None),
        ("（10000P1）付款失败", "error_code", "10000P1"),
        ("提示[2020003]", "error_code", "2020003"),
        ("报错 E1203", "error_code", "E1203"),
        ("err_network_changed", "error_code", "ERR_NETWORK_CHANGED"),
        ("验证码错误123456", "error_code", None),
        ("error 3 times in a row", "error_code", None),
        ("v3.2.1闪退", "app_version", "3.2.1"),
        ("updated to 6.0.3 and it crashes", "app_version", "6.0.3"),
        ("iOS版本17.4，闪退", "app_version", None),
        ("支付宝充值失败", "method", "alipay"),
        ("支付寶充值失敗", "method", "alipay"),
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


TOLD = [
    *(
        ("amount", told, amount)
        for _, amount, currency, told in MONEY
        if currency and not told[-1].isdigit() and told != "1w"
    ),
    *(("time", told, time) for _, time, told in TIMES if told not in {"刚", "20261103"}),
    ("email", "Li.Ming@Example.com", "li.ming@example.com"),
    ("phone", "+852 9123 4567", "+85291234567"),
    ("phone", "138-0013-8000", "+8613800138000"),
    ("order_no", "2026110322001156789012", "2026110322001156789012"),
    ("device", "iPhone 13 Pro", "iPhone 13 Pro"),
    ("error_code", "RISK_CHECK_FAIL", "RISK_CHECK_FAIL"),
]
BEFORE = ["", "，", "。", " ", "请帮我看看，", "Please help. ", "（", "！", "😀", "\n"]
BEHIND = [
    "",
    "，",
    "。",
    " ",
    "，一直不行",
    "请帮我看看",
    " and it does not work",
    ". Please help.",
    "）",
    "！",
    "😀",
    "\n",
]


@given(st.sampled_from(BEFORE), st.sampled_from(TOLD), st.sampled_from(BEHIND))
def test_a_fact_stands_where_it_was_told_whatever_is_around_it(
    before: str, fact: tuple[str, str, str], behind: str
) -> None:
    field, told, value = fact
    text = f"{before}{told}{behind}"
    (found,) = (one for one in decide(text).found_facts if one.field == field)
    assert (text[found.start : found.end], found.value) == (told, value)


MONEY_FACTS = {Fact.TIME, Fact.AMOUNT, Fact.METHOD, Fact.ORDER_NO}
NEEDED = {
    Category.TOP_UP: MONEY_FACTS,
    Category.PAYMENT_FAILED: MONEY_FACTS,
    Category.MISSING_FUNDS: MONEY_FACTS,
    Category.WITHDRAWAL: MONEY_FACTS,
    Category.REFUND: MONEY_FACTS,
    Category.DISPUTE: MONEY_FACTS | {Fact.MERCHANT, Fact.EVIDENCE},
    Category.ACCOUNT_ACCESS: {Fact.CONTACT},
    Category.REGISTRATION_IDENTITY: {Fact.CONTACT},
    Category.ACCOUNT_SECURITY: {Fact.TIME, Fact.TRANSACTIONS, Fact.CONTACT},
    Category.APP_TECHNICAL: {Fact.DEVICE, Fact.APP_VERSION, Fact.ERROR_CODE},
    Category.PROMOTIONS: {Fact.CAMPAIGN, Fact.ORDER_NO},
}
# Each way to give a fact, by itself: a message, what else is known, and what is given by it.
GIVEN: list[tuple[str, dict[str, bool], set[Fact]]] = [
    ("昨天", {}, {Fact.TIME}),
    ("yesterday at 3pm", {}, {Fact.TIME}),
    ("两千块", {}, {Fact.AMOUNT, Fact.TRANSACTIONS}),
    ("$20", {}, {Fact.AMOUNT, Fact.TRANSACTIONS}),
    ("支付宝", {}, {Fact.METHOD}),
    ("credit card", {}, {Fact.METHOD}),
    ("订单号AB123456", {}, {Fact.ORDER_NO, Fact.TRANSACTIONS}),
    ("美团", {}, {Fact.MERCHANT}),
    ("13800138000", {}, {Fact.CONTACT}),
    ("a@example.com", {}, {Fact.CONTACT}),
    ("", {"contact_known": True}, {Fact.CONTACT}),
    ("iPhone 13", {}, {Fact.DEVICE}),
    ("app版本3.2.1", {}, {Fact.APP_VERSION}),
    ("报错E1203", {}, {Fact.ERROR_CODE}),
    ("", {"has_attachments": True}, {Fact.EVIDENCE, Fact.ERROR_CODE}),
    ("双十一", {}, {Fact.CAMPAIGN}),
    ("优惠码SAVE20", {}, {Fact.CAMPAIGN}),
]


@pytest.mark.parametrize("category", Category)
def test_each_category_asks_for_what_it_needs_until_it_is_told(category: Category) -> None:
    needed = NEEDED.get(category, set())
    nothing_known = {"contact_known": False, "has_attachments": False}
    assert set(missing(category, Facts(), **nothing_known)) == needed
    for text, known, gives in GIVEN:
        left = missing(category, decide(text).facts, **(nothing_known | known))
        assert set(left) == needed - gives, text


def test_a_device_told_twice_stands_where_it_was_told_first() -> None:
    text = "换了苹果手机，原来的苹果手机打不开"
    assert place(decide(text), "device", text) == "苹果手机"


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
