"""`examples/README.md` makes promises about the example data; here they are counted."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import ValidationError
from stdnum import luhn
from stdnum.iso7064 import mod_11_2

from shared.events import ChannelMessage
from shared.redaction import redact, redact_json_text
from shared.taxonomy import Category, Channel

EXAMPLES = Path(__file__).parents[2] / "examples"
BRANDS = {"upay_wallet", "u_wallet", "upay", "u_wallet_app", "topay", "tp_wallet"}
CHINA = timezone(timedelta(hours=8))

# Published by card schemes and payment providers for testing: they belong to nobody.
TEST_CARDS = {
    "4111111111111111",
    "4242424242424242",
    "5105105105105100",
    "5555555555554444",
    "6011111111111117",
    "6200000000000005",
    "378282246310005",
}
FICTIONAL_PHONE = re.compile(
    r"\+8613800138[0-9]{3}"  # around a carrier's own service line
    r"|\+1[2-9][0-9]{2}55501[0-9]{2}"  # 555-0100 to 555-0199, kept for fiction in North America
    r"|\+447700900[0-9]{3}"  # kept for drama by the British regulator
)
CHINESE = re.compile(r"[\u3400-\u9fff]")
LATIN_WORD = re.compile(r"[A-Za-z]{3,}")
# A letter before it makes it an order number: one of those passes the check digit by chance, and must stay.
CARD_LIKE = re.compile(r"(?<![0-9A-Za-z])[0-9](?:[ -]?[0-9]){12,18}(?![0-9])")
IDENTITY_LIKE = re.compile(r"(?<![0-9])[1-9][0-9]{16}[0-9Xx](?![0-9A-Za-z])")
QUOTED = re.compile(r"^>", re.MULTILINE)
TURN = re.compile(r"^(?:坐席：|Agent: )", re.MULTILINE)


class Label(NamedTuple):
    language: str
    category: str
    secondary: tuple[str, ...]


class Secret(NamedTuple):
    kind: str
    secret: str


Key = tuple[str, str, str]  # brand, channel, message id


def lines() -> list[str]:
    return (EXAMPLES / "messages.jsonl").read_text(encoding="utf-8").splitlines()


def parsed(line: str) -> ChannelMessage | None:
    try:
        return ChannelMessage.model_validate_json(line)
    except ValidationError:
        return None


def key_of(message: ChannelMessage) -> Key:
    return message.brand, message.channel.value, message.message_id


@cache
def accepted() -> tuple[ChannelMessage, ...]:
    """Every valid line, duplicates too, in order."""
    return tuple(message for line in lines() if (message := parsed(line)))


@cache
def distinct() -> tuple[ChannelMessage, ...]:
    """The first of every message."""
    first: dict[Key, ChannelMessage] = {}
    for message in accepted():
        first.setdefault(key_of(message), message)
    return tuple(first.values())


@cache
def labels() -> dict[Key, Label]:
    with (EXAMPLES / "labels.tsv").open(encoding="utf-8", newline="") as file:
        return {
            (row["brand"], row["channel"], row["message_id"]): Label(
                row["language"], row["category"], tuple(filter(None, row["secondary"].split(",")))
            )
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        }


@cache
def secrets() -> tuple[Secret, ...]:
    with (EXAMPLES / "secrets.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return tuple(Secret(row["kind"], row["secret"]) for row in rows)


def written(message: ChannelMessage) -> tuple[str, ...]:
    """What the customer wrote: text, subject, names of attachments."""
    return (message.text, message.subject or "", *(attachment.name for attachment in message.attachments))


def conversations() -> dict[str, list[ChannelMessage]]:
    by_customer: dict[str, list[ChannelMessage]] = {}
    for message in sorted(distinct(), key=lambda message: message.sent_at):
        by_customer.setdefault(message.key, []).append(message)
    return by_customer


def gaps(messages: list[ChannelMessage]) -> Iterator[timedelta]:
    return (later.sent_at - earlier.sent_at for earlier, later in pairwise(messages))


def conversations_with_gap(fits: Callable[[timedelta], bool]) -> int:
    return sum(any(map(fits, gaps(messages))) for messages in conversations().values())


def counted() -> dict[str, int]:
    """The figures of the README's table, by their names there."""
    languages = Counter(label.language for label in labels().values())
    categories = Counter(label.category for label in labels().values())
    brands_of_id: dict[tuple[str, str], set[str]] = {}
    for message in distinct():
        brands_of_id.setdefault((message.channel, message.message_id), set()).add(message.brand)
    return {
        "lines": len(lines()),
        "messages": len(distinct()),
        "duplicates": len(accepted()) - len(distinct()),
        "bad records": len(lines()) - len(accepted()),
        "in Chinese": languages["zh"],
        "in English": languages["en"],
        "Chinese and English mixed": languages["mixed"],
        "in another language": languages["other"],
        "with several points": sum(bool(label.secondary) for label in labels().values()),
        "of the rarest category": min(categories[category] for category in Category),
        "from customers with the VIP flag": sum(message.customer.vip for message in distinct()),
        "with attachments": sum(bool(message.attachments) for message in distinct()),
        "mails that quote what came before": sum(bool(QUOTED.search(message.text)) for message in distinct()),
        "hotline transcripts with turns": sum(bool(TURN.search(message.text)) for message in distinct()),
        "longer than 250 characters": sum(len(message.text) > 250 for message in distinct()),
        "conversations with a follow-up within a second": conversations_with_gap(
            lambda gap: gap < timedelta(seconds=1)
        ),
        "conversations with a follow-up within ten minutes": conversations_with_gap(
            lambda gap: gap < timedelta(minutes=10)
        ),
        "conversations with a follow-up after a day or more": conversations_with_gap(
            lambda gap: gap > timedelta(hours=20)
        ),
        "conversations of three messages or more": sum(len(them) > 2 for them in conversations().values()),
        "message ids that several brands use": sum(len(brands) > 1 for brands in brands_of_id.values()),
        "secrets": len(secrets()),
        "lines with a secret": sum(any(secret in line for _, secret in long_secrets()) for line in lines()),
    }


def long_secrets() -> Iterator[Secret]:
    """Those that do not occur by chance: three digits stand in every time stamp."""
    return (secret for secret in secrets() if len(secret.secret) > 4)


def promised() -> dict[str, int]:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+?) +\| +([0-9]+) \|$", readme, re.MULTILINE)
    return {name: int(count) for name, count in rows}


def test_the_readme_s_table_holds() -> None:
    assert promised() == counted()


@pytest.mark.parametrize("message", distinct(), ids=lambda message: message.message_id)
def test_nothing_leads_to_a_real_person(message: ChannelMessage) -> None:
    raw = message.model_dump_json()
    for domain in re.findall(r"[\w.+-]+@([\w-]+(?:\.[\w-]+)+)", raw):
        assert domain in ("example.com", "example.org")
    for host in re.findall(r"https?://([^/\"]+)", raw):
        assert host == "files.example.com"
    for number in re.findall(r"\+[0-9][0-9 ]{8,}[0-9]", raw):
        assert FICTIONAL_PHONE.fullmatch(number.replace(" ", ""))
    for number in re.findall(r"(?<![0-9A-Za-z])1[3-9][0-9]{9}(?![0-9])", message.text):
        assert FICTIONAL_PHONE.fullmatch(f"+86{number}")


def test_every_mail_can_be_answered() -> None:
    for message in distinct():
        if message.channel in (Channel.EMAIL, Channel.WEB_FORM):
            assert re.fullmatch(r"[\w.+-]+@example\.(?:com|org)", message.reply_to or ""), message.message_id


def test_every_brand_uses_every_channel() -> None:
    assert {(message.brand, message.channel) for message in distinct()} == {
        (brand, channel) for brand in BRANDS for channel in Channel
    }


def test_every_brand_meets_every_category() -> None:
    assert {(brand, label.category) for (brand, _, _), label in labels().items()} == {
        (brand, category.value) for brand in BRANDS for category in Category
    }


def test_labels_stand_for_the_messages_and_for_nothing_else() -> None:
    assert labels().keys() == {key_of(message) for message in distinct()}
    for label in labels().values():
        points = (label.category, *label.secondary)
        assert set(points) <= set(Category)
        assert len(set(points)) == len(points)


def test_language_labels_agree_with_the_script() -> None:
    for message in distinct():
        language = labels()[key_of(message)].language
        text = "\n".join(written(message)[:2])
        if language == "zh":
            assert CHINESE.search(text) or not LATIN_WORD.search(text), text
        elif language == "en":
            assert not CHINESE.search(text), text
        elif language == "mixed":
            assert CHINESE.search(text), text
            assert LATIN_WORD.search(text), text
        else:
            assert language == "other"


def test_all_times_lie_in_one_week_with_a_peak_at_noon_and_in_the_evening() -> None:
    times = [message.sent_at.astimezone(CHINA) for message in accepted()]
    newest = max(times)
    assert newest - min(times) < timedelta(days=7)
    assert newest - datetime(2026, 11, 18, 21, 40, tzinfo=CHINA) < timedelta(minutes=10)
    by_hour = Counter(time.hour for time in times if time.date() == newest.date())
    quiet = max(count for hour, count in by_hour.items() if hour not in {12, 13, 18, 19, 20, 21})
    assert by_hour[12] > 3 * quiet
    assert by_hour[20] > 3 * quiet
    assert len({message.sent_at.utcoffset() for message in accepted()}) >= 5


def test_lines_stand_in_the_order_in_which_they_arrive() -> None:
    times = [message.sent_at for message in distinct()]
    assert times == sorted(times)


def test_duplicates_include_changed_text_and_a_later_time() -> None:
    first = {key_of(message): message for message in distinct()}
    again = [(message, first[key_of(message)]) for message in accepted()]
    assert any(repeated.text != original.text for repeated, original in again)
    assert any(repeated.sent_at > original.sent_at for repeated, original in again)


def test_every_bad_record_is_bad_in_its_own_way() -> None:
    ways: list[str] = []
    for line in lines():
        try:
            ChannelMessage.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            ways.append(f"{first['loc']} {first['msg']} {str(first['input'])[:40]}")
    assert len(set(ways)) == len(ways)


def test_secrets_prove_themselves_and_belong_to_nobody() -> None:
    for kind, secret in secrets():
        if kind == "card":
            # Also as people write them: in groups, and in full-width digits.
            digits = "".join(str(int(character)) for character in secret if character.isdecimal())
            assert luhn.is_valid(digits)
            assert digits in TEST_CARDS
        elif kind == "identity":
            assert mod_11_2.is_valid(secret)
            assert secret[6:10] < "1950", "made-up numbers carry a birth year long ago"
        else:
            assert kind in {"cvv", "password", "pin", "code"}


def test_every_secret_occurs_and_none_is_missing_from_the_list() -> None:
    raw = "\n".join(lines())
    listed = {secret for _, secret in secrets()}
    for secret in listed:
        assert secret in raw
    for message in accepted():
        for text in written(message):
            for match in CARD_LIKE.finditer(text):
                if luhn.is_valid(re.sub("[ -]", "", match[0])):
                    assert match[0] in listed
            for match in IDENTITY_LIKE.finditer(text):
                if mod_11_2.is_valid(match[0].upper()):
                    assert match[0] in listed


def test_secrets_hide_in_subjects_and_attachments_and_bad_records_too() -> None:
    def holds(text: str) -> bool:
        return any(secret in text for _, secret in long_secrets())

    assert any(holds(message.text) for message in distinct())
    assert any(holds(message.subject or "") for message in distinct())
    assert any(holds(attachment.name) for message in distinct() for attachment in message.attachments)
    assert any(holds(line) for line in lines() if parsed(line) is None)


def test_redaction_cuts_every_secret() -> None:
    for message in accepted():
        for text in written(message):
            cut = redact(text).text
            for kind, secret in long_secrets():
                assert secret not in cut, f"{message.message_id}: a {kind} is left"
    for line in lines():
        if parsed(line) is None:
            cut = redact_json_text(line)
            assert not [kind for kind, secret in long_secrets() if secret in cut]


def test_what_is_not_secret_is_left_alone() -> None:
    """Order numbers, amounts and phone numbers survive: an agent needs them."""
    listed = [secret for _, secret in secrets()]
    for message in accepted():
        for text in written(message):
            if not any(secret in text for secret in listed):
                assert redact(text).text == text, message.message_id


def test_bad_records_are_single_lines_and_the_file_ends_with_one() -> None:
    raw = (EXAMPLES / "messages.jsonl").read_text(encoding="utf-8")
    assert raw.endswith("\n")
    assert "\n\n" not in raw
    with pytest.raises(json.JSONDecodeError):
        json.loads(next(line for line in lines() if parsed(line) is None))
