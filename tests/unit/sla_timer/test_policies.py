"""Policies: which rule wins, what a length of time means, and what is refused with the name of the culprit."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from services.sla_timer.config import PolicyFiles, load_policies
from services.sla_timer.domain.policies import PolicyError, Span
from services.sla_timer.settings import Settings
from shared.events import EscalationLevel, SlaKind, Target
from shared.taxonomy import Category, Channel, Priority
from shared.yaml_files import ConfigError
from tests.support.brands import write_brand
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
        # brand before category before channel
        ({"a": rule("1m", brand="upay"), "b": rule("2m", category="refund")}, "a/*"),
        ({"a": rule("1m", channel="email"), "b": rule("2m", category=["refund", "dispute"])}, "b/*"),
        ({"a": rule("1m", category="dispute")}, "default/*"),
        ({"a": rule("1m", brand="upay", category="refund"), "b": rule("2m", brand="upay", channel="email")}, "a/*"),
        # more of them before fewer
        ({"a": rule("1m", brand="upay"), "b": rule("2m", "P1", channel="email")}, "b/P1"),
        ({"a": rule("1m", "P1", brand="upay"), "b": rule("2m", brand="upay", channel="email")}, "b/*"),
        ({"a": rule("1m", "P2", brand="upay", channel="email")}, "default/*"),
    ],
)
def test_the_most_specific_rule_wins_in_whatever_order_they_stand(rules: dict[str, object], wins: str) -> None:
    for ordered in ({"default": DEFAULT, **rules}, {**rules, "default": DEFAULT}):
        terms = policies_of(**ordered).terms("upay", Channel.EMAIL, Category.REFUND, Priority.P1, FIRST)
        assert terms is not None
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
    assert Span.parse(str(span)) == span


@pytest.mark.parametrize("text", ["", "0m", "15", "m15", "-1h", "1w", "2h1d", 15, None, "400d"])
def test_a_length_of_time_that_is_none(text: object) -> None:
    with pytest.raises(PolicyError):
        Span.parse(text)


# --- the files of the repository ------------------------------------------------------------------------------------


def shipped() -> PolicyFiles:
    return Settings().policy_files


def test_the_shipped_policies_promise_something_to_everyone() -> None:
    policies = load_policies(shipped())
    for brand, channel, target in product((*BRANDS, "a_new_brand"), Channel, Target):
        by_priority = [policies.terms(brand, channel, None, priority, target) for priority in Priority]
        promised = [terms for terms in by_priority if terms is not None]
        assert promised == by_priority or target is Target.PERIODIC_UPDATE
        days = [terms.target_seconds / policies.calendars[terms.calendar].day_seconds for terms in promised]
        assert days == sorted(days), (brand, channel, target)  # more urgent is never promised later
        assert all(mark.kind is SlaKind.WARNING for terms in promised for mark in terms.marks[:1])
        assert all(terms.marks for terms in promised)


def test_live_channels_are_tighter_than_mail() -> None:
    policies = load_policies(shipped())
    # Not the resolution: its length is counted on calendars of different hours.
    for brand, channel, priority, target in product(BRANDS, LIVE, Priority, (FIRST, Target.NEXT_RESPONSE)):
        live = policies.terms(brand, channel, None, priority, target)
        mail = policies.terms(brand, Channel.EMAIL, None, priority, target)
        assert live is not None
        assert mail is not None
        assert live.target_seconds < mail.target_seconds


def test_every_hotline_has_working_hours_of_its_own() -> None:
    policies = load_policies(shipped())
    promised = [policies.terms(brand, Channel.PHONE, None, Priority.P1, FIRST) for brand in BRANDS]
    used = {terms.calendar for terms in promised if terms is not None}
    assert len(used) == len(BRANDS)
    assert all(policies.calendars[name].day_seconds < 86_400 for name in used)


@pytest.mark.parametrize(
    ("old", "new", "field", "says"),
    [
        ("first_response: 2m", "first_response: 2x", "rules.chat.targets.P1.first_response", "'2x' is not a length"),
        ("first_response: 2m, ", "", "rules.chat.targets.P1.first_response", "required"),
        ("P1: { first_response: 2m", "P9: { first_response: 2m", "rules.chat.targets.P9", "P1"),
        ("warnings: [0.5, 0.8]", "warnings: [0.5, 1.5]", "rules.default.warnings", "between 0 and 1"),
        ("warnings: [0.5, 0.8]", "warnings: [0.8, 0.5]", "rules.default.warnings", "must rise"),
        ("channel: phone", "channel: fax", "rules.hotline.channel.0", "app_chat"),
        ("calendar: always", "calendar: nights", "rules.chat.calendar", "no calendar 'nights'"),
        ("own_hours: true", "hours: {upay: {x: always}}", "rules.default.hours", "stand in the brands' files"),
        ("provisional_priority: P3", "provisional_priority: P7", "provisional_priority", "P1"),
        ('channel: "*"', "channel: email", "rules", "there is no default"),
        ("factor: 2.0", "factor: 1.2", "peaks", "ends_below_factor"),
        ("factor: 2.0", "factr: 2.0", "peaks.factr", "not permitted"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_field(tmp_path: Path, old: str, new: str, field: str, says: str) -> None:
    text = shipped().sla.read_text(encoding="utf-8")
    assert old in text
    edited = tmp_path / "sla.yaml"
    edited.write_text(text.replace(old, new, 1), encoding="utf-8")
    assert_told(replace(shipped(), sla=edited), edited, field, says)


def assert_told(files: PolicyFiles, edited: Path, field: str, says: str) -> None:
    """The error names the file, a line that has the field, and what is wrong."""
    with pytest.raises(ConfigError) as caught:
        load_policies(files)
    told = str(caught.value)
    assert told.startswith(str(edited))
    line = int(told.removeprefix(f"{edited}:").split(":")[0])
    there = edited.read_text(encoding="utf-8").splitlines()[line - 1]
    assert any(f"{part}:" in there for part in field.split(".")[-2:]), there
    assert field in told
    assert says in told


# --- what brands promise of their own --------------------------------------------------------------------------------

OWN: dict[str, Any] = {
    "channels": {"phone": {"hours": "u_wallet_hotline"}, "email": {"hours": "always"}},
    "promises": {"hotline": {"channel": "phone", "targets": {"*": targets("7m", "1h", "1d")}}},
    "peaks": {"calendar": "topay_office", "windows": [{"queue": "payments", "calendar": "lunch_and_evening"}]},
}


def with_brand(tmp_path: Path, **changes: Any) -> PolicyFiles:
    return replace(shipped(), brands=write_brand(tmp_path, **OWN | changes))


def test_a_brands_promises_and_peaks_are_its_own(tmp_path: Path) -> None:
    policies = load_policies(with_brand(tmp_path))
    own = policies.terms("some_brand", Channel.PHONE, None, Priority.P2, FIRST)
    other = policies.terms("upay", Channel.PHONE, None, Priority.P2, FIRST)
    assert own is not None
    assert other is not None
    assert (own.policy, own.calendar, own.target_seconds) == ("some_brand_hotline/*", "u_wallet_hotline", 420)
    assert (other.policy, other.calendar) == ("hotline/P2", "china_every_day")
    assert policies.zone_calendar("some_brand").name == "topay_office"
    assert policies.zone_calendar("upay").name == "china_office"
    (window,) = policies.peaks.windows
    assert (window.brand, window.queue, window.calendar) == ("some_brand", "payments", "lunch_and_evening")


def test_a_rule_for_every_brand_goes_by_each_brands_hours(tmp_path: Path) -> None:
    """Mail of this brand is answered round the clock; but what is urgent has a calendar that no brand changes."""
    before = load_policies(with_brand(tmp_path))
    terms = before.terms("some_brand", Channel.EMAIL, None, Priority.P2, FIRST)
    urgent = before.terms("some_brand", Channel.EMAIL, None, Priority.P1, FIRST)
    assert terms is not None
    assert urgent is not None
    assert (terms.policy, terms.calendar) == ("default/P2", "always")
    assert (urgent.policy, urgent.calendar) == ("urgent_mail/P1", "china_every_day")
    hours = {"phone": {"hours": "u_wallet_hotline"}, "email": {"hours": "china_office"}}
    after = load_policies(with_brand(tmp_path, channels=hours))
    assert after.version != before.version
    found = after.terms("some_brand", Channel.EMAIL, None, Priority.P2, FIRST)
    assert found is not None
    assert found.calendar == "china_office"
    assert "default" in after.difference(before.dump(), {}).changed


def test_an_edit_of_the_calendar_of_a_brands_hours_changes_the_policies(tmp_path: Path) -> None:
    """Or its open promises would not be planned again."""
    files = with_brand(tmp_path, channels={"phone": {"hours": "always"}, "email": {"hours": "lunch_and_evening"}})
    calendars = files.calendars.read_text(encoding="utf-8")
    edited = tmp_path / "calendars.yml"
    edited.write_text(calendars.replace("[11:30-13:30, 19:00-21:30]", "[11:30-14:30, 19:00-21:30]"), encoding="utf-8")
    assert load_policies(files).version != load_policies(replace(files, calendars=edited)).version


def test_brands_promises_can_be_left_out(tmp_path: Path) -> None:
    files = with_brand(tmp_path)
    sla = tmp_path / "sla.yml"
    sla.write_text(f"own_promises: false\n{files.sla.read_text(encoding='utf-8')}", encoding="utf-8")
    terms = load_policies(replace(files, sla=sla)).terms("some_brand", Channel.PHONE, None, Priority.P2, FIRST)
    assert terms is not None
    assert (terms.policy, terms.calendar) == ("hotline/P2", "china_every_day")


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"channels": {"phone": {"hours": "nights"}}}, "channels.phone.hours", "there is no calendar 'nights'"),
        (
            {"promises": {"hotline": {"channel": ["phone", "x"], "targets": {"*": targets("7m", "1h", "1d")}}}},
            "promises.hotline.channel",
            "the brand has no x",
        ),
        (
            {"promises": {"hotline": {"targets": {"*": targets("7m", "1h", "1d")}}}},
            "promises.hotline",
            "name the calendar",
        ),
        (
            {"promises": {"hotline": {"calendar": "nights", "targets": {"*": targets("7m", "1h", "1d")}}}},
            "promises.hotline.calendar",
            "there is no calendar 'nights'",
        ),
        (
            {"promises": {"hotline": {"calendar": "always", "targets": {"*": targets("7x", "1h", "1d")}}}},
            "promises.hotline.targets.*.first_response",
            "'7x' is not a length",
        ),
        (
            {"promises": {"hotline": {"brand": "upay", "targets": {"*": targets("7m", "1h", "1d")}}}},
            "promises.hotline.brand",
            "not permitted",
        ),
        ({"peaks": {"calendar": "nights"}}, "peaks.calendar", "there is no calendar 'nights'"),
        ({"peaks": {"windows": [{"calendar": "nights"}]}}, "peaks.windows.0.calendar", "there is no calendar 'nights'"),
    ],
)
def test_what_is_wrong_in_a_brands_file_is_told_with_its_line(
    tmp_path: Path, changes: dict[str, object], field: str, says: str
) -> None:
    assert_told(with_brand(tmp_path, **changes), tmp_path / "some_brand.yaml", field, says)


def test_two_promises_cannot_have_one_name(tmp_path: Path) -> None:
    """`some` and `brand_hotline` make the name that `some_brand` and `hotline` make."""
    files = with_brand(tmp_path)
    promises = {"brand_hotline": {"channel": "phone", "targets": {"*": targets("9m", "1h", "1d")}}}
    write_brand(tmp_path, "some", **OWN | {"promises": promises})
    with pytest.raises(ConfigError, match=r"some_brand\.yaml:\d+: promises\.hotline: another rule has this name"):
        load_policies(files)


# --- warnings, escalations, updates ---------------------------------------------------------------------------------


def test_warnings_are_shares_of_the_target_or_the_time_that_is_left() -> None:
    promise = {"within": "1h", "warnings": [0.5, 0.9, "10m"]}
    terms = policies_of(default={"calendar": "always", "targets": {"*": targets(promise, "30m", "1d")}}).terms(
        "upay", Channel.EMAIL, None, Priority.P1, FIRST
    )
    assert terms is not None
    assert [(mark.used_seconds, mark.share, mark.before_seconds) for mark in terms.marks] == [
        (1800, 0.5, None),
        (3000, None, 600),
        (3240, 0.9, None),
    ]


def test_two_warnings_of_one_moment_are_one() -> None:
    promise = {"within": "20m", "warnings": [0.5, "10m"]}
    terms = policies_of(default={"calendar": "always", "targets": {"*": targets(promise, "30m", "1d")}}).terms(
        "upay", Channel.EMAIL, None, Priority.P1, FIRST
    )
    assert terms is not None
    assert [(mark.share, mark.before_seconds) for mark in terms.marks] == [(0.5, None)]


def test_a_rules_warning_is_left_out_where_a_target_is_too_short_for_it() -> None:
    policies = policies_of(
        default={"calendar": "always", "warnings": ["10m"], "targets": {"*": targets("5m", "30m", "1d")}}
    )
    first = policies.terms("upay", Channel.EMAIL, None, Priority.P1, FIRST)
    following = policies.terms("upay", Channel.EMAIL, None, Priority.P1, Target.NEXT_RESPONSE)
    assert first is not None
    assert following is not None
    assert first.marks == ()
    assert [mark.used_seconds for mark in following.marks] == [1200]


def test_escalations_call_after_the_breach_in_their_order() -> None:
    steps = [{"to": "lead", "after": "10m"}, {"to": "head", "after": "30m"}, {"to": "on_call", "after": "1d"}]
    policies = policies_of(
        default={"calendar": "office", "escalations": steps, "targets": {"*": targets("1h", "1h", "1d")}}
    )
    terms = policies.terms("upay", Channel.EMAIL, None, Priority.P1, FIRST)
    assert terms is not None
    assert [(mark.used_seconds, mark.level) for mark in terms.marks if mark.kind is SlaKind.ESCALATED] == [
        (3600 + 600, EscalationLevel.LEAD),
        (3600 + 1800, EscalationLevel.HEAD),
        (3600 + 8 * 3600, EscalationLevel.ON_CALL),
    ]


@pytest.mark.parametrize(
    ("promise", "says"),
    [
        ({"within": "5m", "warnings": ["10m"]}, "a warning would come before the clock starts"),
        ({"within": "5m", "warnings": [0]}, "between 0 and 1"),
        ({"within": "5m", "warnings": ["soon"]}, "'soon' is not a length of time"),
        (
            {"within": "5m", "escalations": [{"to": "on_call", "after": "1m"}, {"to": "lead", "after": "2m"}]},
            "in the order lead, head, on_call",
        ),
        (
            {"within": "5m", "escalations": [{"to": "lead", "after": "2m"}, {"to": "head", "after": "2m"}]},
            "each escalation must come later",
        ),
        ({"within": "5m", "escalations": [{"to": "boss", "after": "2m"}]}, "lead"),
        ({"warnings": [0.5]}, "within"),
    ],
)
def test_warnings_and_escalations_that_cannot_be(promise: object, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        policies_of(default={"calendar": "always", "targets": {"*": targets(promise, "30m", "1d")}})


def test_no_updates_are_promised_where_the_rule_names_none() -> None:
    policies = policies_of(
        default=DEFAULT, a={"calendar": "always", "brand": "upay", "targets": {"P1": targets("1m", "1m", "1h", "30m")}}
    )
    update = policies.terms("upay", Channel.EMAIL, None, Priority.P1, Target.PERIODIC_UPDATE)
    assert update is not None
    assert update.target_seconds == 1800
    assert policies.terms("upay", Channel.EMAIL, None, Priority.P2, Target.PERIODIC_UPDATE) is None


def test_a_change_is_told_by_the_names_of_rules_and_calendars() -> None:
    before = policies_of(default=DEFAULT, a=rule("1m", brand="upay"), b=rule("1m", brand="topay"))
    after = policies_of(default=rule("2h"), a=rule("1m", brand="upay"), c=rule("1m", brand="tp_wallet"))
    versions = {"always": ALWAYS.version, "office": "another", "night": "gone"}
    difference = after.difference(before.dump(), versions)
    assert (difference.added, difference.removed, difference.changed) == (("c",), ("b",), ("default",))
    assert difference.calendars == ("night", "office")


def test_the_version_changes_with_a_promise_and_with_nothing_else() -> None:
    one = policies_of(default=DEFAULT)
    assert one.version == policies_of(default=DEFAULT).version
    assert one.version != policies_of(default=rule("2h")).version
