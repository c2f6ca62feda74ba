"""What is promised to whom: `sla.yaml` as rules, and the most specific one that applies to a ticket."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from services.sla_timer.domain.peaks import PeakRules
from services.sla_timer.domain.staffing import StaffingRules
from shared.calendars import Calendar
from shared.events import EscalationLevel, SlaKind, Target
from shared.events.base import BrandCode
from shared.taxonomy import Category, Channel, Priority

ANY: Final = "*"

_DURATION: Final = re.compile(r"(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m)?\s*(?:(\d+)s)?")
_LONGEST_DAYS: Final = 366


class PolicyError(ValueError):
    """The policies cannot be used; the message names the rule and what to change. `field`: where in the file."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.reason = message
        self.field = field


@dataclass(frozen=True, slots=True)
class Span:
    """A length of business time as a lead writes it. `days` are working days of the calendar that it is used with."""

    days: int
    seconds: int

    @classmethod
    def parse(cls, value: object) -> Span:
        """`15m`, `4h`, `2d`, `4h30m`, `90s`. Raises PolicyError."""
        found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) and value.strip() else None
        if not found:
            raise PolicyError(f"{value!r} is not a length of time like 15m, 4h30m or 2d")
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        span = cls(days, hours * 3600 + minutes * 60 + seconds)
        if not (span.days or span.seconds) or days + span.seconds / 86_400 > _LONGEST_DAYS:
            raise PolicyError(f"{value!r} is not between 1s and {_LONGEST_DAYS}d")
        return span

    def __str__(self) -> str:
        """As `parse` reads it."""
        hours, minutes, seconds = self.seconds // 3600, self.seconds // 60 % 60, self.seconds % 60
        parts = ((self.days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"))
        return "".join(f"{count}{unit}" for count, unit in parts if count)

    def business_seconds(self, calendar: Calendar) -> int:
        """A day is as long as the calendar's longest working day: 24 hours only where it never closes."""
        return self.days * calendar.day_seconds + self.seconds


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment in a clock's life of which somebody is told: once `used_seconds` of business time are used.

    A warning names the `share` of the target that is used then, or what is left of it (`before_seconds`); a step of
    the escalation names whom it calls. The due time itself, without any of these, is the breach.
    """

    kind: SlaKind
    used_seconds: float
    share: float | None = None
    before_seconds: int | None = None
    level: EscalationLevel | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What one clock was promised: the rule's name, business seconds on a calendar, and what is told on the way.

    The versions say which policies and which calendar it was computed from.
    """

    policy: str
    calendar: str
    target_seconds: int
    marks: tuple[Mark, ...] = ()
    policy_version: str = ""
    calendar_version: str = ""

    @property
    def is_promise(self) -> bool:
        """Whether anything is promised: there is none of no length."""
        return self.target_seconds > 0

    @property
    def breach(self) -> Mark:
        return Mark(SlaKind.BREACHED, self.target_seconds)

    def promises_as(self, other: Terms) -> bool:
        """Whether both promise the same, whichever version of the policies says so."""
        return (self.policy, self.calendar, self.target_seconds, self.marks) == (
            (other.policy, other.calendar, other.target_seconds, other.marks)
        )


# --- sla.yaml --------------------------------------------------------------------------------------------------------


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _share_or_span(value: object) -> object:
    return value if isinstance(value, int | float | Span) and not isinstance(value, bool) else Span.parse(value)


def _share_or_text(value: float | Span) -> float | str:
    return str(value) if isinstance(value, Span) else value


def _checked_warnings(warnings: tuple[float | Span, ...]) -> tuple[float | Span, ...]:
    shares = [item for item in warnings if isinstance(item, float)]
    if any(not 0 < share < 1 for share in shares):
        raise PolicyError("a warning is a share of the target between 0 and 1, or the time that is left, e.g. 10m")
    if shares != sorted(set(shares)):
        raise PolicyError("warnings must rise from one to the next, e.g. [0.5, 0.8]")
    return warnings


def _span(value: object) -> Span:
    return value if isinstance(value, Span) else Span.parse(value)


_SpanText = Annotated[Span, BeforeValidator(_span), PlainSerializer(str, when_used="json")]


class Escalation(BaseModel):
    """A step after the breach: whom to call once so much more business time has gone by."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    to: EscalationLevel
    after: _SpanText


_LEVELS: Final = tuple(EscalationLevel)


def _checked_escalations(steps: tuple[Escalation, ...]) -> tuple[Escalation, ...]:
    levels = [_LEVELS.index(step.to) for step in steps]
    if levels != sorted(set(levels)):
        raise PolicyError(f"escalations call each level once, in the order {', '.join(_LEVELS)}")
    return steps


_Warning = Annotated[float | Span, BeforeValidator(_share_or_span), PlainSerializer(_share_or_text, when_used="json")]
_Warnings = Annotated[tuple[_Warning, ...], AfterValidator(_checked_warnings)]
_Escalations = Annotated[tuple[Escalation, ...], AfterValidator(_checked_escalations)]
_Any = Literal["*"]


class Promise(BaseModel):
    """One target: `1h`, or a mapping that also says what is told on the way where it differs from its rule."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    within: _SpanText
    warnings: _Warnings | None = None
    escalations: _Escalations | None = None

    @model_validator(mode="before")
    @classmethod
    def _written_short(cls, value: object) -> object:
        return value if isinstance(value, dict | Promise) else {"within": value}


class Targets(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    first_response: Promise
    next_response: Promise
    periodic_update: Promise | None = None
    resolution: Promise

    def of(self, target: Target) -> Promise | None:
        return {
            Target.FIRST_RESPONSE: self.first_response,
            Target.NEXT_RESPONSE: self.next_response,
            Target.PERIODIC_UPDATE: self.periodic_update,
            Target.RESOLUTION: self.resolution,
        }[target]


class RuleTerms(BaseModel):
    """What a rule of `sla.yaml` and a promise in a brand's file have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    channel: Annotated[tuple[_Any | Channel, ...], BeforeValidator(_as_list), Field(min_length=1)] = (ANY,)
    category: Annotated[tuple[_Any | Category, ...], BeforeValidator(_as_list), Field(min_length=1)] = (ANY,)
    warnings: _Warnings = (0.8,)
    escalations: _Escalations = ()
    targets: Annotated[dict[_Any | Priority, Targets], Field(min_length=1)]


class Rule(RuleTerms):
    """One rule of `sla.yaml`: for these brands, channels and categories, a calendar and targets by priority.

    `own_hours`: a brand's hours of the channel stand for the calendar. `hours` are those that differ from it, by brand
    and channel; they come from the brands' files.
    """

    brand: Annotated[tuple[_Any | BrandCode, ...], BeforeValidator(_as_list), Field(min_length=1)] = (ANY,)
    calendar: str
    own_hours: bool = False
    hours: dict[BrandCode, dict[Channel, str]] = Field(default_factory=dict)

    def calendar_of(self, brand: str, channel: Channel) -> str:
        return self.hours.get(brand, {}).get(channel, self.calendar)

    def names(self, brand: str, channel: Channel, category: Category | None) -> tuple[bool, bool, bool] | None:
        """Which of the three this rule names itself; none when it is not about them."""
        named = brand in self.brand, channel in self.channel, category is not None and category in self.category
        stated = (self.brand, self.channel, self.category)
        return named if all(by or ANY in values for by, values in zip(named, stated, strict=True)) else None


def _with_a_default(rules: dict[str, Rule]) -> dict[str, Rule]:
    for rule in rules.values():
        everyone = ANY in rule.brand and ANY in rule.channel and ANY in rule.category
        if everyone and (ANY in rule.targets or set(Priority) <= set(rule.targets)):
            return rules
    raise PolicyError(
        "there is no default: one rule must have brand '*', channel '*', category '*' (each may be left out) and "
        "targets for every priority (or '*')"
    )


class PolicyFile(BaseModel):
    """`sla.yaml`; see docs/sla.md."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provisional_priority: Priority = Field(
        default=Priority.P3, description="a ticket's priority until the classifier has spoken"
    )
    own_promises: bool = Field(
        default=True, description="false: the hours, promises and peaks in brands' files are left out"
    )
    rules: Annotated[dict[str, Rule], AfterValidator(_with_a_default)]
    peaks: PeakRules = PeakRules()
    staffing: dict[_Any | Channel, StaffingRules] = Field(default_factory=dict)


# --- ready for use ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    """One row of one rule, as it is chosen from. The higher `rank`, the more specific."""

    name: str
    rule: Rule
    targets: Targets
    rank: tuple[int, bool, bool, bool, bool]

    @property
    def field(self) -> str:
        """Where it stands in the file."""
        name, _, priority = self.name.rpartition("/")
        return f"rules.{name}.targets.{priority}"


@dataclass(frozen=True, slots=True)
class Difference:
    """What two versions of the policies differ in: names of rules and calendars, sorted."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    calendars: tuple[str, ...]


class Policies:
    """Rules ready for use. The most specific row wins: the one that names more of brand, channel, category and
    priority, and among equals the one that names the brand, then the category, then the channel.

    `archive`: calendars of earlier versions, by their version, for promises that were made under them. `since`: when
    they came into force, where that is known: a kind of promise that is new in them is made from then on. Raises
    PolicyError for a calendar that is not there, for a warning that would come before its clock starts, and for two
    rows that claim the same ticket equally.
    """

    def __init__(
        self,
        file: PolicyFile,
        calendars: Mapping[str, Calendar],
        archive: Mapping[str, Calendar] | None = None,
        since: datetime | None = None,
    ) -> None:
        self.since = since
        self.provisional_priority = file.provisional_priority
        self.peaks = file.peaks
        self.staffing = file.staffing
        self.calendars = calendars
        self._rules = file.rules
        self._archive = {**(archive or {}), **{calendar.version: calendar for calendar in calendars.values()}}
        self._chosen: dict[tuple[str, Channel, Category | None, Priority], dict[Target, Terms]] = {}
        self._check_calendars(file)
        used = sorted({name for rule in file.rules.values() for name in _calendars_of(rule)})
        content = (file.model_dump_json(exclude={"peaks", "staffing"}), *(calendars[name].version for name in used))
        self.version = hashlib.sha256("\n".join(content).encode()).hexdigest()[:12]
        """Changes when a promise could change: open clocks are re-planned then."""
        brands = sorted({brand for rule in file.rules.values() for brand in (*rule.brand, *rule.hours)})
        # A category that no rule names is treated as no category is.
        categories = [None, *sorted({item for rule in file.rules.values() for item in rule.category if item != ANY})]
        for brand, channel, category, priority in product(brands, Channel, categories, Priority):
            self._terms(brand, channel, category, priority)

    def terms(
        self, brand: str, channel: Channel, category: Category | None, priority: Priority, target: Target
    ) -> Terms | None:
        """None where no such promise is made."""
        return self._terms(brand, channel, category, priority).get(target)

    def calendar(self, terms: Terms) -> Calendar:
        """The calendar that these terms were counted on, of their version as long as it is known."""
        return (
            self._archive.get(terms.calendar_version)
            or self.calendars.get(terms.calendar)
            or self.calendars[self._default_calendar]
        )

    def knows(self, calendar_version: str) -> bool:
        return calendar_version in self._archive

    def learn(self, archive: Mapping[str, Calendar]) -> None:
        """Take in calendars of other versions: promises of another replica may be counted on them."""
        self._archive = {**archive, **self._archive}

    def zone_calendar(self, brand: str) -> Calendar:
        """The calendar in whose zone and with whose holidays the week of a brand's arrivals is counted."""
        named = self.peaks.calendars.get(brand) or self.peaks.calendars.get(ANY) or self._default_calendar
        return self.calendars[named]

    def staffing_of(self, channel: Channel) -> StaffingRules:
        return self.staffing.get(channel) or self.staffing.get("*") or StaffingRules()

    def dump(self) -> dict[str, Any]:
        """The rules as plain JSON, to be kept with their version."""
        return {name: rule.model_dump(mode="json") for name, rule in self._rules.items()}

    def difference(self, rules: Mapping[str, Any], calendar_versions: Mapping[str, str]) -> Difference:
        """From what was in force before (`dump()`, and the version of each calendar) to these."""
        mine = self.dump()
        here = {name: calendar.version for name, calendar in self.calendars.items()}
        return Difference(
            added=tuple(sorted(mine.keys() - rules.keys())),
            removed=tuple(sorted(rules.keys() - mine.keys())),
            changed=tuple(sorted(name for name in mine.keys() & rules.keys() if mine[name] != rules[name])),
            calendars=tuple(
                sorted(name for name in here | dict(calendar_versions) if here.get(name) != calendar_versions.get(name))
            ),
        )

    @property
    def _default_calendar(self) -> str:
        return next(rule.calendar for rule in self._rules.values() if ANY in rule.brand and ANY in rule.channel)

    def _check_calendars(self, file: PolicyFile) -> None:
        named = [(f"rules.{name}.calendar", rule.calendar) for name, rule in file.rules.items()]
        named += [(f"peaks.windows.{at}.calendar", window.calendar) for at, window in enumerate(file.peaks.windows)]
        named += [(f"peaks.calendars.{brand}", name) for brand, name in file.peaks.calendars.items()]
        for field, name in named:
            if name not in self.calendars:
                raise PolicyError(f"there is no calendar {name!r}, only {', '.join(sorted(self.calendars))}", field)

    def _terms(
        self, brand: str, channel: Channel, category: Category | None, priority: Priority
    ) -> dict[Target, Terms]:
        key = (brand, channel, category, priority)
        chosen = self._chosen.get(key)
        if chosen is None:
            entry = self._choose(brand, channel, category, priority)
            chosen = self._chosen[key] = {
                target: self._of_promise(entry, entry.rule.calendar_of(brand, channel), target, promise)
                for target in Target
                if (promise := entry.targets.of(target)) is not None
            }
        return chosen

    def _of_promise(self, entry: _Entry, calendar_name: str, target: Target, promise: Promise) -> Terms:
        rule, calendar = entry.rule, self.calendars[calendar_name]
        seconds = promise.within.business_seconds(calendar)
        warnings = rule.warnings if promise.warnings is None else promise.warnings
        escalations = rule.escalations if promise.escalations is None else promise.escalations
        marks: list[Mark] = []
        for item in warnings:
            mark = _warning(item, seconds, calendar)
            if mark.used_seconds <= 0:
                if promise.warnings is not None:  # one of the whole rule is left out where a target is too short for it
                    raise PolicyError("a warning would come before the clock starts", f"{entry.field}.{target}")
            elif mark.used_seconds not in {other.used_seconds for other in marks}:  # one moment, one warning
                marks.append(mark)
        after = [step.after.business_seconds(calendar) for step in escalations]
        if after != sorted(set(after)):
            raise PolicyError("each escalation must come later than the one before it", f"{entry.field}.{target}")
        marks += [
            Mark(SlaKind.ESCALATED, seconds + more, level=step.to)
            for step, more in zip(escalations, after, strict=True)
        ]
        return Terms(
            entry.name,
            calendar_name,
            seconds,
            tuple(sorted(marks, key=lambda mark: mark.used_seconds)),
            self.version,
            calendar.version,
        )

    def _choose(self, brand: str, channel: Channel, category: Category | None, priority: Priority) -> _Entry:
        matching = sorted(
            self._matching(brand, channel, category, priority), key=lambda entry: entry.rank, reverse=True
        )
        first, *others = matching  # never empty: the file has a default
        if others and others[0].rank == first.rank:
            claimed = "/".join(filter(None, (brand, channel, category, priority)))
            raise PolicyError(
                f"{first.name} and {others[0].name} both claim {claimed}, "
                "and neither is more specific; take it out of one",
                first.field,
            )
        return first

    def _matching(
        self, brand: str, channel: Channel, category: Category | None, priority: Priority
    ) -> Iterator[_Entry]:
        for name, rule in self._rules.items():
            named = rule.names(brand, channel, category)
            if named is None:
                continue
            by_brand, by_channel, by_category = named
            for stated, targets in rule.targets.items():
                if stated in (priority, ANY):
                    by_priority = stated == priority
                    rank = (sum(named) + by_priority, by_brand, by_category, by_channel, by_priority)
                    yield _Entry(f"{name}/{stated}", rule, targets, rank)


def _calendars_of(rule: Rule) -> Iterator[str]:
    yield rule.calendar
    for by_channel in rule.hours.values():
        yield from by_channel.values()


def _warning(item: float | Span, target_seconds: int, calendar: Calendar) -> Mark:
    if isinstance(item, float):
        return Mark(SlaKind.WARNING, target_seconds * item, share=item)
    left = item.business_seconds(calendar)
    return Mark(SlaKind.WARNING, target_seconds - left, before_seconds=left)
