"""What a message is about: every category in both languages, the settled cases, points, language, trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest

from services.classifier.domain.decide import Classifier, Decision, Message
from services.classifier.domain.scoring import Evidence, Passage, Scored
from shared.taxonomy import CATEGORIES, Category, Channel, Language, Queue

CLASSIFIER = Classifier()


class OneAnswer:
    """A model that makes the same of every passage, and leaves what is below 0.3 to a person."""

    name = "one-answer-1"
    thresholds: ClassVar = dict.fromkeys(Category, 0.3)

    def __init__(self, probabilities: tuple[float, ...]) -> None:
        best = list(Category)[probabilities.index(max(probabilities))]
        self._scored = Scored(best, probabilities, (Evidence("anything", best, 1.0),))

    def score(self, passages: Sequence[Passage]) -> list[Scored]:
        return [self._scored for _ in passages]


def decide(text: str, **more: object) -> Decision:
    return CLASSIFIER.classify(Message(text, **more))  # type: ignore[arg-type]


EVERY_CATEGORY = [
    ("account_security", "钱包里的钱被人盗走了，不是我操作的", "Somebody hacked my wallet and drained it"),
    ("account_access", "我忘了登录密码，进不去了", "I forgot my password and cannot log in"),
    ("payment_failed", "在超市扫码支付一直失败", "My payment at the bakery was declined"),
    ("missing_funds", "上午转给朋友的钱他还没收到", "The transfer to my sister has still not arrived"),
    ("top_up", "充值老是不成功", "My top-up keeps failing"),
    ("withdrawal", "余额怎么提现到银行卡", "How do I withdraw cash at an ATM"),
    ("refund", "这笔订单我要申请退款", "I would like a refund for this order"),
    (
        "dispute",
        "买的鞋质量太差，商家不肯退，商家拒绝退货",
        "The headphones are not as described and the seller refuses a return",
    ),
    ("balance_statement", "去哪里看上个月的交易记录", "Where can I download my statement"),
    ("fees_limits", "每天转账的限额是多少", "What is the fee for an international transfer"),
    ("promotions", "我的优惠券怎么领取不了", "My coupon code is not accepted"),
    ("card_binding", "怎么解绑旧的银行卡", "How can I link my new debit card in the app"),
    ("registration_identity", "实名认证总是提示身份证不符", "I want to close my account"),
    ("app_technical", "一打开应用就闪退", "The app crashes with a blank screen"),
    ("credit_wealth", "借款逾期会不会影响征信", "How do I repay my loan early"),
    ("complaint", "你们客服态度恶劣，我要投诉", "I want to file a complaint, your support is useless"),
    ("feedback", "建议你们增加一个深色模式", "It would be nice to have a dark mode, great app"),
    ("how_to", "请帮我转人工客服", "I want to speak to a real person"),
    ("other", "你好", "Thanks, never mind"),
]


@pytest.mark.parametrize(("category", "zh", "en"), EVERY_CATEGORY, ids=[row[0] for row in EVERY_CATEGORY])
def test_every_category_in_both_languages(category: str, zh: str, en: str) -> None:
    for text, language in ((zh, Language.ZH), (en, Language.EN)):
        decision = decide(text)
        assert (decision.category, decision.language) == (category, language), text
        assert decision.queue is CATEGORIES[decision.category].queue


def test_the_table_has_every_category() -> None:
    assert {row[0] for row in EVERY_CATEGORY} == set(Category)


@pytest.mark.parametrize(
    ("text", "category"),
    [
        # A loan product decides only where the product itself is the matter.
        ("花呗还款总是失败", Category.CREDIT_WEALTH),
        ("拿花呗付款提示失败", Category.PAYMENT_FAILED),
        ("花呗被冻结了", Category.CREDIT_WEALTH),
        ("退款退回花呗了，账单却没有减少", Category.REFUND),
        # Identity data refused; asking to lift the block is access.
        ("身份证输错次数太多", Category.REGISTRATION_IDENTITY),
        ("账户被锁了，请帮我解锁", Category.ACCOUNT_ACCESS),
        # A lost card, and a replacement that only wants to be bound.
        ("我的卡丢了", Category.ACCOUNT_SECURITY),
        ("卡丢了已经补办，新卡怎么重新绑定", Category.CARD_BINDING),
        # A fee of something, only asked about.
        ("提现收多少手续费", Category.FEES_LIMITS),
        ("余额宝转入失败", Category.CREDIT_WEALTH),
        ("订单取消了，红包没退给我", Category.PROMOTIONS),
        # Safety first, whatever is told beside it.
        ("提现失败，而且我被骗子骗了三千", Category.ACCOUNT_SECURITY),
        ("充值成功了但余额没有到账", Category.MISSING_FUNDS),
        ("我被骗了", Category.ACCOUNT_SECURITY),
        # Traditional characters, full-width forms, misspellings.
        ("我的帳戶被盜了", Category.ACCOUNT_SECURITY),
        ("ＡＰＰ打不开", Category.APP_TECHNICAL),
        ("登陆不上去了", Category.ACCOUNT_ACCESS),
    ],
)
def test_settled_cases_and_writing(text: str, category: Category) -> None:
    assert decide(text).category is category


@pytest.mark.parametrize("text", ["", "   \n ", "👍👍", "……"])
def test_nothing_said_is_other(text: str) -> None:
    decision = decide(text)
    assert (decision.category, decision.queue, decision.language) == (Category.OTHER, Queue.GENERAL, Language.OTHER)


def test_what_is_not_understood_goes_to_triage_with_its_best_guess() -> None:
    decision = decide("qwv zzk pfft")
    assert decision.queue is Queue.TRIAGE
    assert decision.category is Category.OTHER
    assert [step.detail for step in decision.trace.steps] == [
        "nothing spoke for any category", "not understood: a person decides",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("付款失败 please help", Language.ZH),
        ("闪退，iPhone 13 iOS 17.1", Language.ZH),
        ("my friend 王伟 did not receive the money that I sent", Language.EN),
        ("Hola, no puedo entrar en mi cuenta", Language.OTHER),
        ("Je n'ai pas reçu mon argent", Language.OTHER),
        ("アカウントにログインできません", Language.OTHER),
        ("Я не могу войти", Language.OTHER),
        ("No money on my account", Language.EN),
        ("12345", Language.OTHER),
    ],
)
def test_language(text: str, language: Language) -> None:
    assert decide(text).language is language


def test_points_are_listed_in_order_and_the_gravest_names_the_ticket() -> None:
    text = "第一，优惠券用不了；第二，怎么修改手机号？另外昨天提现的钱还没到账。"
    decision = decide(text)
    assert [point.category for point in decision.points] == [
        Category.PROMOTIONS, Category.REGISTRATION_IDENTITY, Category.MISSING_FUNDS,
    ]  # fmt: skip
    assert [text[point.start : point.end] for point in decision.points] == [point.text for point in decision.points]
    assert decision.category is Category.MISSING_FUNDS
    assert {one.category for one in decision.alternatives} >= {Category.PROMOTIONS, Category.REGISTRATION_IDENTITY}


MISSING, FEES, CARDS, ACCESS = (
    Category.MISSING_FUNDS, Category.FEES_LIMITS, Category.CARD_BINDING, Category.ACCOUNT_ACCESS,
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "points"),
    [
        # A fee or a limit only asked about is settled, and yet weighs less than missing money told beside it.
        ("请教两件事：1. 充值扣款了，余额却没有增加；2. 国外付款收多少手续费？", [MISSING, FEES]),
        (
            "1) What is the fee for a withdrawal? 2) My top-up left the bank, but the balance has not gone up",
            [FEES, MISSING],
        ),
        ("提现手续费是多少？另外，上周转错人了，怎么追回？", [FEES, MISSING]),
        # Anger between two matters does not hide that there are two.
        ("被重复扣款了。我要投诉！跨行转账的手续费是多少？", [MISSING, FEES]),
        ("转账的钱没到账。气死了，我要投诉！优惠券为什么不能用？", [MISSING, Category.PROMOTIONS]),
        # A numbered matter told without asking or complaining is one.
        ("1. 上午充值200元；2. 登录密码忘了，怎么找回？", [Category.TOP_UP, ACCESS]),
        ("1. 充值300元，2. 怎么换绑银行卡？", [Category.TOP_UP, CARDS]),
    ],
)
def test_what_settles_one_matter_does_not_swallow_another(text: str, points: list[Category]) -> None:
    decision = decide(text)
    assert [point.category for point in decision.points] == points
    assert decision.category is (MISSING if MISSING in points else decision.category)


@pytest.mark.parametrize(
    ("text", "category"),
    [
        # Both in one breath: a fee is settled only where nothing graver is told with it.
        ("钱转错人了，跨行转账手续费是多少", MISSING),
        ("转账的钱不见了，转账限额是多少", MISSING),
        ("my transfer went to the wrong account by mistake, and what is the transfer fee", MISSING),
        ("充值扣款成功，余额却没变", MISSING),
        ("充值成功，余额一直没增加", MISSING),
        # What is only asked about stays settled.
        ("余额提现要不要手续费", FEES),
        ("提现扣了两块钱手续费，怎么收的", FEES),
    ],
)
def test_a_fee_is_settled_only_where_nothing_graver_is_told(text: str, category: Category) -> None:
    assert decide(text).category is category


def test_the_link_of_a_message_binds_no_card() -> None:
    text = "I got a suspicious text message with a link asking for my login. Is this phishing?"
    assert [point.category for point in decide(text).points] == [Category.ACCOUNT_SECURITY]
    assert decide("How do I link my card?").category is CARDS


def test_certainty_is_never_claimed_and_confidence_never_rounded_up() -> None:
    sure = decide("我的账户被盗刷了，不是我操作的，骗子")
    assert 0.95 < sure.confidence < 1
    assert all(one.score < 1 for one in sure.alternatives)
    for probability, said in ((0.29999, 0.2999), (0.3, 0.3), (0.57, 0.57), (1.0, 0.9999)):
        other = (1 - probability) / (len(Category) - 1)
        scores = tuple(probability if one is Category.REFUND else other for one in Category)
        decision = Classifier(model=OneAnswer(scores)).classify(Message("qwv"))
        assert (decision.category, decision.confidence) == (Category.REFUND, said)
        assert (decision.queue is Queue.TRIAGE) == (probability < 0.3)


def test_money_back_asked_for_in_anger_is_the_quarrel_it_is_about() -> None:
    text = "The seller ignores me, I opened a dispute. Nobody cares, I am filing a complaint! I want my money back."
    assert [point.category for point in decide(text).points] == [Category.DISPUTE]


@pytest.mark.parametrize(
    "text",
    [
        "昨天我充值了两百块。到现在余额还没到账。",  # background and matter
        "Hello. My top-up of $50 failed! Please help me. Thanks.",
        "垃圾软件！！付款又失败！！",
    ],
)
def test_background_courtesy_and_anger_are_no_points_of_their_own(text: str) -> None:
    assert len(decide(text).points) == 1


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("有两件事：忘了支付密码，而且上周的退款还没收到", [Category.ACCOUNT_ACCESS, Category.MISSING_FUNDS]),
        ("请教几个问题，境外刷卡手续费多少、怎么绑卡", [Category.FEES_LIMITS, CARDS]),
        ("Two things: the app crashes and I was charged twice.", [Category.APP_TECHNICAL, Category.MISSING_FUNDS]),
        # Nothing of the kind is announced: one sentence, one matter.
        ("忘了支付密码，而且上周的退款还没收到", [Category.ACCOUNT_ACCESS]),
        ("I have two cards and both were declined at the shop", [Category.PAYMENT_FAILED]),
        ("三个问题都没解决，付款失败了三次", [Category.PAYMENT_FAILED]),
    ],
)
def test_several_matters_that_are_announced_are_told_apart_within_a_sentence(text: str, points: list[Category]) -> None:
    assert [point.category for point in decide(text).points] == points


def test_of_several_matters_the_most_urgent_gives_the_category() -> None:
    # Equals by the tie-break: P3 comes before P4, whichever is told first or surer.
    assert decide("退款什么时候到？顺便问下你们手续费怎么收").category is Category.REFUND
    assert decide("你们手续费怎么收？顺便问下退款什么时候到").category is Category.REFUND


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("充值失败。另外，我要投诉你们客服", Category.COMPLAINT),
        ("My top-up failed. Also I want to speak to a real person.", Category.HOW_TO),
    ],
)
def test_a_word_that_opens_another_matter_makes_even_a_general_one_a_point(text: str, last: Category) -> None:
    decision = decide(text)
    assert [point.category for point in decision.points] == [Category.TOP_UP, last]
    assert decision.category is Category.TOP_UP


def test_the_subject_helps_where_the_text_leaves_it_open() -> None:
    alone = decide("Please see above, it is urgent.")
    helped = decide("Please see above, it is urgent.", subject="Refund for my order", channel=Channel.EMAIL)
    assert alone.category is not Category.REFUND
    assert helped.category is Category.REFUND
    assert any(step.step == "subject" for step in helped.trace.steps)


def test_the_subject_does_not_overrule_a_plain_text() -> None:
    assert decide("我的账户被盗了", subject="优惠券").category is Category.ACCOUNT_SECURITY


def test_a_settled_case_is_named_in_the_trace_and_the_evidence_is_shown() -> None:
    decision = decide("我的账户被盗刷了")
    assert decision.trace.decided_by == "rule:money_and_account_safety_first"
    assert decision.trace.model == CLASSIFIER.model.name
    assert "stolen" in decision.trace.steps[0].detail


def test_what_redaction_left_behind_is_no_evidence() -> None:
    assert decide("充值失败 [card]").category is decide("充值失败").category
    assert decide("[password]").category is Category.OTHER
