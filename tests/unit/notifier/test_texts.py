"""What customers and leads read: complete, in their language, and never asking for a secret."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.notifier.config import TEXTS_DIRECTORY, load_outputs, load_texts
from services.notifier.domain.notifications import acknowledgement, reminders_of
from services.notifier.domain.texts import Texts, acknowledgement_text, duration_text, reference_of
from shared.events import EscalationLevel, SlaKind, Target
from shared.taxonomy import CATEGORIES, Category, Fact, Language
from shared.yaml_files import ConfigError
from tests.support.brands import write_brand
from tests.unit.notifier.examples import (
    CONFIG_FILE,
    ENVIRONMENT,
    OUTPUTS,
    TEXTS,
    TRACE,
    escalation_event,
    outputs_with,
    routed_event,
    sla_event,
)

BRAND_NAMES = OUTPUTS.brand("upay").name.by_language
TICKET = routed_event().ticket_id

# A secret, a verb by which one asks for it, and what turns asking into its opposite; per language.
SECRET = re.compile(
    r"卡号|密码|验证码|安全码|身份证|CVV|PIN\b|card number|password|passcode|\bcode\b|identity (card|number)|ID number",
    re.I,
)
ASKING = re.compile(
    r"提供|告诉|告知|发送|发给|回复|填写|上传|补充|索要"
    r"|\b(send|tell|give|share|provide|reply|write|state|enter|confirm|ask)\b",
    re.I,
)
REFUSING = re.compile(r"不会|不要|不得|请勿|绝不|never|do not|don't", re.I)


def asks_for_a_secret(sentence: str) -> bool:
    return bool(SECRET.search(sentence) and ASKING.search(sentence) and not REFUSING.search(sentence))


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    else:
        yield str(value)


def text_of(language: Language, category: Category, **changes: Any) -> str:
    _, text = acknowledgement_text(
        TEXTS,
        ticket_id=TICKET,
        brand_names=BRAND_NAMES,
        language=language,
        category=category,
        points=changes.get("points", (category,)),
        missing=changes.get("missing", CATEGORIES[category].facts),
    )
    return text


@pytest.mark.parametrize("language", ["zh", "en"])
def test_no_text_asks_for_a_secret(language: str) -> None:
    content = yaml.safe_load((TEXTS_DIRECTORY / f"{language}.yaml").read_text(encoding="utf-8"))
    sentences = [part for words in strings(content) for part in re.split(r"[。！？\n]|[.!?](?:\s|$)", words) if part]
    assert len(sentences) > 100
    assert [sentence for sentence in sentences if asks_for_a_secret(sentence)] == []
    # What is asked for (facts are joined to a "please reply with") names no secret at all but the promo code.
    asked = [words.replace("promo code", "").replace("优惠码", "") for words in content["facts"].values()]
    assert [words for words in asked if SECRET.search(words)] == []


def test_the_check_for_secrets_bites() -> None:
    assert asks_for_a_secret("请回复您的银行卡号")
    assert asks_for_a_secret("Please tell us your password")
    assert not asks_for_a_secret("我们绝不会向您索要密码")


@pytest.mark.parametrize("category", Category)
@pytest.mark.parametrize("language", Language)
def test_every_acknowledgement_has_its_parts(language: Language, category: Category) -> None:
    text = text_of(language, category)
    books = TEXTS.of(language)
    assert text.count(reference_of(TICKET)) == len(books) == (2 if language is Language.OTHER else 1)
    for book in books:
        assert book.categories[category].next in text
        assert all(step in text for step in book.categories[category].steps)
        assert all((book.facts[fact] in text) == (fact in CATEGORIES[category].facts) for fact in Fact)
        safety = category is Category.ACCOUNT_SECURITY
        assert (book.freeze in text, book.safety in text) == (safety, safety)
    assert "{" not in text


def test_speaks_the_customers_language() -> None:
    assert not re.search(r"[\u4e00-\u9fff]", text_of(Language.EN, Category.REFUND))
    chinese = text_of(Language.ZH, Category.REFUND).replace("UPay", "").replace(reference_of(TICKET), "")
    assert not re.search(r"[A-Za-z]", chinese)


def test_lists_every_point_that_was_raised() -> None:
    points = (Category.TOP_UP, Category.REFUND, Category.FEES_LIMITS)
    lines = text_of(Language.ZH, Category.TOP_UP, points=points).splitlines()
    assert [line for line in lines if re.match(r"\d", line)] == ["1. 充值", "2. 退款", "3. 费用与限额"]


def test_asks_nothing_when_nothing_is_missing() -> None:
    assert TEXTS.en.questions not in text_of(Language.EN, Category.TOP_UP, missing=())


def test_a_secondary_point_about_security_offers_freezing() -> None:
    text = text_of(Language.EN, Category.MISSING_FUNDS, points=(Category.MISSING_FUNDS, Category.ACCOUNT_SECURITY))
    assert TEXTS.en.freeze in text


@pytest.mark.parametrize(
    ("seconds", "zh", "en"),
    [
        (0, "0 秒", "0 seconds"),
        (1, "1 秒", "1 second"),
        (59, "59 秒", "59 seconds"),
        (60, "1 分钟", "1 minute"),
        (90, "1 分钟 30 秒", "1 minute 30 seconds"),
        (600, "10 分钟", "10 minutes"),
        (3600, "1 小时", "1 hour"),
        (3659, "1 小时", "1 hour"),  # nobody says "1 hour 59 seconds"
        (3661, "1 小时 1 分钟", "1 hour 1 minute"),
        (7500, "2 小时 5 分钟", "2 hours 5 minutes"),
        (93600, "26 小时", "26 hours"),
    ],
)
def test_lengths_are_written_as_people_say_them(seconds: int, zh: str, en: str) -> None:
    assert (duration_text(TEXTS.zh.units, seconds), duration_text(TEXTS.en.units, seconds)) == (zh, en)


@pytest.mark.parametrize("brand", ["upay", "topay"])
@pytest.mark.parametrize("target", Target)
def test_every_reminder_is_filled_in_and_in_one_language(brand: str, target: Target) -> None:
    outputs = outputs_with({"heads": {}, "on_call": {}})
    events = [
        sla_event(kind=SlaKind.WARNING),
        sla_event(kind=SlaKind.WARNING, warning_before_seconds=61),
        sla_event(),
        *map(escalation_event, EscalationLevel),
    ]
    told = [
        item
        for event in events
        for item in reminders_of(event.model_copy(update={"brand": brand, "target": target}), TEXTS, outputs, TRACE)
        if item.data["person"] != "on_call_rota"  # reads Chinese of every brand
    ]
    assert len({item.subject for item in told}) == len(told) == (6 if brand == "upay" else 5)
    for item in told:
        assert "{" not in item.subject + item.text
        assert TEXTS.of(item.language)[0].targets[target] in item.text
        assert bool(re.search(r"[\u4e00-\u9fff]", item.subject + item.text)) is (item.language is Language.ZH)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("  dispute:\n", "  disputes:\n", r"zh\.yaml:\d+: categories\.disputes"),
        ("工单号 {reference}", "工单号 {ticket}", r"zh\.yaml:\d+: received: unknown placeholder \{ticket\}"),
        ('  merchant: "商家名称"\n', "", r"zh\.yaml:\d+: facts: no text for merchant"),
        ("  head:\n", "  heads:\n", r"zh\.yaml:\d+: escalations\.heads"),
        ('  periodic_update: "进展更新"\n', "", r"zh\.yaml:\d+: targets: no text for periodic_update"),
        (
            "还剩 {left}：",
            "还剩 {time}：",
            r"zh\.yaml:\d+: reminders\.warning_left_subject: unknown placeholder \{time\}",
        ),
        ("categories:", "categories: [", r"zh\.yaml:\d+: not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_by_file_and_field(tmp_path: Path, old: str, new: str, named: str) -> None:
    directory = tmp_path / "texts"
    shutil.copytree(TEXTS_DIRECTORY, directory)
    words = (directory / "zh.yaml").read_text(encoding="utf-8")
    assert old in words
    (directory / "zh.yaml").write_text(words.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=named) as raised:
        load_texts(directory)
    assert str(directory) in str(raised.value)


# --- a brand's own words ---------------------------------------------------------------------------------------------

OWN = {
    "zh": {
        "received": "您好，这里是{brand}，编号 {reference}。",
        "signature": "某钱包客服部",
        "categories": {"refund": {"steps": ["先看订单页。", "再看原支付方式。"]}},
    },
    "en": {"closing": "Write again any time."},
}


def own_texts(tmp_path: Path) -> Texts:
    outputs = load_outputs(CONFIG_FILE, write_brand(tmp_path, texts=OWN), ENVIRONMENT)
    return TEXTS.in_words_of(outputs.brand("some_brand").texts)


def test_a_brand_acknowledges_in_its_own_words_and_keeps_everybodys_elsewhere(tmp_path: Path) -> None:
    outputs = load_outputs(CONFIG_FILE, write_brand(tmp_path, texts=OWN), ENVIRONMENT)
    event = routed_event(brand="some_brand", category=Category.REFUND, missing=(Fact.AMOUNT,))
    made = acknowledgement(event, TEXTS, outputs, TRACE)
    other = acknowledgement(event.model_copy(update={"brand": "upay"}), TEXTS, outputs, TRACE)
    assert made is not None
    assert other is not None
    first, *_, signature = made.text.split("\n\n")
    assert first.startswith(f"您好，这里是某钱包，编号 {reference_of(TICKET)}。")
    assert signature == "某钱包客服部"
    assert "- 先看订单页。\n- 再看原支付方式。" in made.text
    assert TEXTS.zh.categories[Category.REFUND].next in made.text  # of this category only the steps are its own
    assert TEXTS.zh.facts[Fact.AMOUNT] in made.text
    assert not any(words in other.text for words in ("这里是某钱包", signature, "先看订单页"))


def test_each_language_has_its_own_words(tmp_path: Path) -> None:
    own = own_texts(tmp_path)
    assert (own.zh.closing, own.en.closing) == (TEXTS.zh.closing, "Write again any time.")
    assert (own.zh.signature, own.en.signature) == ("某钱包客服部", None)
    assert own.en.received == TEXTS.en.received
    assert own.name_of(Category.REFUND, own.zh) == CATEGORIES[Category.REFUND].zh


@pytest.mark.parametrize("brand", sorted(OUTPUTS.brands))
def test_no_brands_own_words_ask_for_a_secret(brand: str) -> None:
    for own in OUTPUTS.brand(brand).texts.values():
        for text in strings(own.model_dump(mode="json")):
            assert not any(asks_for_a_secret(sentence) for sentence in re.split(r"[。；;.!?！？\n]", text)), text
