"""What is promised to whom: `sla.yaml` as rules, and the one that applies to a brand, a channel and a priority."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from services.sla_timer.domain.peaks import PeakRules
from shared.calendars import Calendar
from shared.events import Target
from shared.events.base import BrandCode
from shared.taxonomy import Channel, Priority

ANY: Final = "*"

_DURATION: Final = re.compile(r"(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m)?\s*(?:(\d+)s)?")
_LONGEST_DAYS: Final = 366


class PolicyError(ValueError):
    """The policies cannot be used; the message names the rule and what to change."""


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

    def business_seconds(self, calendar: Calendar) -> int:
        """A day is as long as the calendar's longest working day: 24 hours only where it never closes."""
        return self.days * calendar.day_seconds + self.seconds


@dataclass(frozen=True, slots=True)
class Terms:
    """What one clock was promised: the rule's name, business seconds on a calendar, warnings as shares."""

    policy: str
    calendar: str
    target_seconds: int
    warnings: tuple[float, ...] = ()


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _ascending(shares: tuple[float, ...]) -> tuple[float, ...]:
    if list(shares) != sorted(set(shares)):
        raise PolicyError("warnings must rise from one to the next, e.g. [0.5, 0.8]")
    return shares


_SpanText = Annotated[Span, BeforeValidator(Span.parse)]
_Share = Annotated[float, Field(gt=0, lt=1)]
_Any = Literal["*"]


class Targets(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    first_response: _SpanText
    next_response: _SpanText
    resolution: _SpanText

    def of(self, target: Target) -> Span:
        return {
            Target.FIRST_RESPONSE: self.first_response,
            Target.NEXT_RESPONSE: self.next_response,
            Target.RESOLUTION: self.resolution,
        }[target]


class Rule(BaseModel):
    """One rule of `sla.yaml`: for these brands on these channels, a calendar and a table of targets by priority."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    brand: Annotated[tuple[_Any | BrandCode, ...], BeforeValidator(_as_list), Field(min_length=1)] = (ANY,)
    channel: Annotated[tuple[_Any | Channel, ...], BeforeValidator(_as_list), Field(min_length=1)] = (ANY,)
    calendar: str
    warnings: Annotated[tuple[_Share, ...], AfterValidator(_ascending)] = (0.8,)
    targets: Annotated[dict[_Any | Priority, Targets], Field(min_length=1)]


def _with_a_default(rules: dict[str, Rule]) -> dict[str, Rule]:
    for rule in rules.values():
        if ANY in rule.brand and ANY in rule.channel and (ANY in rule.targets or set(Priority) <= set(rule.targets)):
            return rules
    raise PolicyError(
        "there is no default: one rule must have brand '*', channel '*' and targets for every priority (or '*')"
    )


class PolicyFile(BaseModel):
    """`sla.yaml`; see docs/sla.md."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provisional_priority: Priority = Field(
        default=Priority.P3, description="a ticket's priority until the classifier has spoken"
    )
    rules: Annotated[dict[str, Rule], AfterValidator(_with_a_default)]
    peaks: PeakRules = PeakRules()


@dataclass(frozen=True, slots=True)
class _Entry:
    """One row of one rule, as it is chosen from. The higher `rank`, the more specific."""

    name: str
    calendar: str
    warnings: tuple[float, ...]
    targets: Targets
    rank: tuple[int, bool, bool, bool]

    @property
    def terms_of(self) -> Iterator[tuple[Target, Span]]:
        return ((target, self.targets.of(target)) for target in Target)


def _fingerprint(calendar: Calendar) -> str:
    # Sets have no order of their own: every process must come to the same text.
    extra = (sorted(calendar.extra_holidays), sorted(calendar.extra_working_days), calendar.extra_working_hours)
    return repr((calendar.name, calendar.zone, calendar.week, calendar.holidays, *extra))


class Policies:
    """Rules ready for use. The most specific row wins: the one that names more of brand, channel and priority, and
    among equals the one that names the brand, then the channel.

    Raises PolicyError for a calendar that is not there, and for two rows that claim the same ticket equally.
    """

    def __init__(self, file: PolicyFile, calendars: Mapping[str, Calendar]) -> None:
        self.provisional_priority = file.provisional_priority
        self.peaks = file.peaks
        self.calendars = calendars
        self._rules = file.rules
        self._chosen: dict[tuple[str, Channel, Priority], dict[Target, Terms]] = {}
        for name, rule in file.rules.items():
            if rule.calendar not in calendars:
                raise PolicyError(
                    f"rules.{name}.calendar: there is no calendar {rule.calendar!r}, "
                    f"only {', '.join(sorted(calendars))}"
                )
        for window in file.peaks.windows:
            if window.calendar not in calendars:
                raise PolicyError(f"peaks.windows: there is no calendar {window.calendar!r}")
        named = {brand for rule in file.rules.values() for brand in rule.brand}
        for brand, channel, priority in product(sorted(named), Channel, Priority):
            self._terms(brand, channel, priority)
        used = sorted({rule.calendar for rule in file.rules.values()})
        content = (file.model_dump_json(exclude={"peaks"}), *(_fingerprint(calendars[name]) for name in used))
        self.version = hashlib.sha256("\n".join(content).encode()).hexdigest()[:12]
        """Changes when a promise could change: open clocks are re-planned then."""

    def terms(self, brand: str, channel: Channel, priority: Priority, target: Target) -> Terms:
        return self._terms(brand, channel, priority)[target]

    def calendar(self, terms: Terms, otherwise: Terms) -> Calendar:
        """The calendar of `terms`; one that has been removed since is replaced by that of `otherwise`."""
        return self.calendars.get(terms.calendar) or self.calendars[otherwise.calendar]

    def calendar_named(self, name: str) -> Calendar:
        return self.calendars[name]

    def _terms(self, brand: str, channel: Channel, priority: Priority) -> dict[Target, Terms]:
        key = (brand, channel, priority)
        chosen = self._chosen.get(key)
        if chosen is None:
            entry = self._choose(brand, channel, priority)
            calendar = self.calendars[entry.calendar]
            chosen = self._chosen[key] = {
                target: Terms(entry.name, entry.calendar, span.business_seconds(calendar), entry.warnings)
                for target, span in entry.terms_of
            }
        return chosen

    def _choose(self, brand: str, channel: Channel, priority: Priority) -> _Entry:
        matching = sorted(self._matching(brand, channel, priority), key=lambda entry: entry.rank, reverse=True)
        first, *others = matching  # never empty: the file has a default
        if others and others[0].rank == first.rank:
            raise PolicyError(
                f"rules: {first.name} and {others[0].name} both claim {brand}/{channel}/{priority}, "
                "and neither is more specific; take it out of one"
            )
        return first

    def _matching(self, brand: str, channel: Channel, priority: Priority) -> Iterator[_Entry]:
        for name, rule in self._rules.items():
            for stated, targets in rule.targets.items():
                by_brand, by_channel, by_priority = brand in rule.brand, channel in rule.channel, stated == priority
                if (
                    (by_brand or ANY in rule.brand)
                    and (by_channel or ANY in rule.channel)
                    and (by_priority or stated == ANY)
                ):
                    rank = (by_brand + by_channel + by_priority, by_brand, by_channel, by_priority)
                    yield _Entry(f"{name}/{stated}", rule.calendar, rule.warnings, targets, rank)
