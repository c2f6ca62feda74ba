"""Policies: which rule wins, what a length of time means, and what is refused with the name of the culprit."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from services.sla_timer.config import load_policies
from services.sla_timer.domain.policies import PolicyError, Span
from services.sla_timer.settings import Settings
from shared.events import Target
from shared.taxonomy import Channel, Priority
from shared.yaml_files import ConfigError
from tests.unit.sla_timer.support import ALWAYS, OFFICE, policies_of, targets

FIRST = Target.FIRST_RESPONSE
BRANDS = ("upay_wallet", "u_wallet", "upay", "u_wallet_app", "topay", "tp_wallet")
LIVE = (Channel.APP_CHAT, Channel.PHONE, Channel.WHATSAPP, Channel.TELEGRAM)


def rule(first: str, priority: str = "*", **match: object) -> dict[str, object]:
    return {"calendar": "always", "targets": {priority: targets(first, "1h", "1d")}, **match}


DEFAULT = rule("1h")


@pytest.mark.parametrize(
    ("rules", "wins"),
    [
        ({}, "default/*"),
        ({"a": rule("1m", brand="upay")}, "a/*"),
        ({"a": rule("1m", brand="topay")}, "default/*"),
        ({"a": rule("1m", brand=["topay", "upay"])}, "a/*"),
        # brand before channel before priority
        ({"a": rule("1m", brand="upay"), "b": rule("2m", channel="email")}, "a/*"),
        ({"a": rule("1m", "P1"), "b": rule("2m", channel="email")}, "b/*"),
        # more of them before fewer
        ({"a": rule("1m", brand="upay"), "b": rule("2m", "P1", channel="email")}, "b/P1"),
        ({"a": rule("1m", "P1", brand="upay"), "b": rule("2m", brand="upay", channel="email")}, "b/*"),
        ({"a": rule("1m", "P2", brand="upay", channel="email")}, "default/*"),
    ],
)
def test_the_most_specific_rule_wins_in_whatever_order_they_stand(rules: dict[str, object], wins: str) -> None:
    for ordered in ({"default": DEFAULT, **rules}, {**rules, "default": DEFAULT}):
        terms = policies_of(**ordered).terms("upay", Channel.EMAIL, Priority.P1, FIRST)
        assert terms.policy == wins


def test_two_rules_that_claim_the_same_ticket_equally_are_refused() -> None:
    with pytest.raises(PolicyError, match=r"a/\* and b/\* both claim upay/app_chat/P1"):
        policies_of(default=DEFAULT, a=rule("1m", brand="upay"), b=rule("2m", brand=["upay", "topay"]))


def test_a_calendar_that_is_not_there_is_refused() -> None:
    with pytest.raises(
        PolicyError, match=r"rules\.default\.calendar: there is no calendar 'night', only always, office"
    ):
        policies_of(default={**DEFAULT, "calendar": "night"})


@pytest.mark.parametrize(
    ("text", "seconds_always", "seconds_office"),
    [("15m", 900, 900), ("4h30m", 16_200, 16_200), ("90s", 90, 90), ("2d", 172_800, 57_600), ("1d 2h", 93_600, 36_000)],
)
def test_a_day_is_a_working_day_of_the_calendar(text: str, seconds_always: int, seconds_office: int) -> None:
    span = Span.parse(text)
    assert (span.business_seconds(ALWAYS), span.business_seconds(OFFICE)) == (seconds_always, seconds_office)


@pytest.mark.parametrize("text", ["", "0m", "15", "m15", "-1h", "1w", "2h1d", 15, None, "400d"])
def test_a_length_of_time_that_is_none(text: object) -> None:
    with pytest.raises(PolicyError):
        Span.parse(text)


# --- the files of the repository ------------------------------------------------------------------------------------


def shipped() -> tuple[Path, Path]:
    settings = Settings()
    return settings.sla_timer_policies_file, settings.sla_timer_calendars_file


def test_the_shipped_policies_promise_something_to_everyone() -> None:
    policies = load_policies(*shipped())
    for brand, channel, target in product((*BRANDS, "a_new_brand"), Channel, Target):
        by_priority = [policies.terms(brand, channel, priority, target) for priority in Priority]
        days = [terms.target_seconds / policies.calendar_named(terms.calendar).day_seconds for terms in by_priority]
        assert days == sorted(days), (brand, channel, target)  # more urgent is never promised later
        assert all(terms.warnings for terms in by_priority)


def test_live_channels_are_tighter_than_mail() -> None:
    policies = load_policies(*shipped())
    for brand, channel, priority, target in product(BRANDS, LIVE, Priority, Target):
        live = policies.terms(brand, channel, priority, target).target_seconds
        if target is not Target.RESOLUTION:  # its length is counted on calendars of different hours
            assert live < policies.terms(brand, Channel.EMAIL, priority, target).target_seconds


def test_every_hotline_has_working_hours_of_its_own() -> None:
    policies = load_policies(*shipped())
    used = {policies.terms(brand, Channel.PHONE, Priority.P1, FIRST).calendar for brand in BRANDS}
    assert len(used) == len(BRANDS)
    assert all(policies.calendar_named(name).day_seconds < 86_400 for name in used)


@pytest.mark.parametrize(
    ("old", "new", "field", "says"),
    [
        ("first_response: 2m", "first_response: 2x", "rules.chat.targets.P1.first_response", "'2x' is not a length"),
        ("first_response: 2m, ", "", "rules.chat.targets.P1.first_response", "required"),
        ("P1: { first_response: 2m", "P9: { first_response: 2m", "rules.chat.targets.P9", "P1"),
        ("warnings: [0.5, 0.75, 0.9]", "warnings: [0.5, 1.5]", "rules.upay_chat.warnings.1", "less than 1"),
        ("warnings: [0.5, 0.75, 0.9]", "warnings: [0.9, 0.5]", "rules.upay_chat.warnings", "must rise"),
        ("channel: phone", "channel: fax", "rules.hotline.channel.0", "app_chat"),
        ("calendar: upay_hotline", "calendar: upay_nights", "rules.upay_hotline.calendar", "no calendar 'upay_nights'"),
        ("provisional_priority: P3", "provisional_priority: P7", "provisional_priority", "P1"),
        ('channel: "*"', "channel: email", "rules", "there is no default"),
        ("factor: 2.0", "factor: 1.2", "peaks", "ends_below_factor"),
        ("factor: 2.0", "factr: 2.0", "peaks.factr", "not permitted"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_field(tmp_path: Path, old: str, new: str, field: str, says: str) -> None:
    sla, calendars = shipped()
    text = sla.read_text(encoding="utf-8")
    assert old in text
    edited = tmp_path / "sla.yaml"
    edited.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_policies(edited, calendars)
    told = str(caught.value)
    assert told.startswith(str(edited))
    assert field in told
    assert says in told


def test_the_version_changes_with_a_promise_and_with_nothing_else() -> None:
    one = policies_of(default=DEFAULT)
    assert one.version == policies_of(default=DEFAULT).version
    assert one.version != policies_of(default=rule("2h")).version
