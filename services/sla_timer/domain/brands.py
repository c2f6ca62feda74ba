"""What a brand's file says of its promises and peaks, and how that joins `sla.yaml`.

A promise `hotline` of brand `upay` becomes the rule `upay_hotline`, for this brand alone; a brand's peaks join those of
`sla.yaml`. Where a rule goes by brands' own hours, the hours of the channel stand for the rule's calendar.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.sla_timer.domain.peaks import PeakWindow
from services.sla_timer.domain.policies import ANY, PolicyError, PolicyFile, Rule, RuleTerms
from shared.brands import BrandFile, Name
from shared.taxonomy import Channel, Queue
from shared.yaml_files import Fault, refused


class OwnPromise(RuleTerms):
    """A rule of one brand. Without a calendar it goes by the hours of its channels."""

    calendar: str | None = None


class OwnWindow(BaseModel):
    """A time at which a peak of this brand is known to come: the working time of a calendar."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queue: Literal["*"] | Queue = "*"
    channel: Literal["*"] | Channel = "*"
    calendar: str


class OwnPeaks(BaseModel):
    """`calendar`: the one in whose zone and with whose holidays the brand's week is counted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    calendar: str | None = None
    windows: tuple[OwnWindow, ...] = ()


class PolicyBrand(BrandFile):
    """A brand's file as the sla_timer reads it."""

    promises: Mapping[Name, OwnPromise] = Field(default_factory=dict)
    peaks: OwnPeaks = OwnPeaks()

    @model_validator(mode="after")
    def _promises_on_its_channels(self) -> Self:
        faults: list[Fault] = []
        for name, promise in self.promises.items():
            if absent := sorted({channel for channel in promise.channel if channel != ANY} - self.channels.keys()):
                faults.append((("promises", name, "channel"), f"the brand has no {', '.join(absent)}"))
            if promise.calendar is None and ANY in promise.channel:
                why = "name the calendar, or the channels whose hours it goes by"
                faults.append((("promises", name, "calendar"), why))
        if faults:
            raise refused(faults)
        return self

    def rules(self) -> Iterator[tuple[str, Rule]]:
        for name, promise in self.promises.items():
            terms = {field: getattr(promise, field) for field in RuleTerms.model_fields}
            calendar = promise.calendar or next(self.channels[each].hours for each in promise.channel if each != ANY)
            own_hours = promise.calendar is None
            yield f"{self.brand}_{name}", Rule(**terms, brand=(self.brand,), calendar=calendar, own_hours=own_hours)


def unknown_hours(brand: BrandFile, calendars: Collection[str]) -> Iterator[tuple[str, str]]:
    """Hours that are no calendar: the field, and what is wrong with it."""
    for channel, section in brand.channels.items():
        if section.hours not in calendars:
            known = ", ".join(sorted(calendars))
            yield f"channels.{channel}.hours", f"there is no calendar {section.hours!r}, only {known}"


def with_brands(file: PolicyFile, brands: Mapping[str, PolicyBrand]) -> PolicyFile:
    """What `sla.yaml` and the brands' files say together. Raises PolicyError: two rules have one name."""
    rules = dict(file.rules)
    for brand in brands.values():
        for name, rule in brand.rules():
            if name in rules:
                raise PolicyError("another rule has this name, made of the brand and its own", f"rules.{name}")
            rules[name] = rule
    peaks = file.peaks.model_copy(
        update={
            "calendars": {
                **file.peaks.calendars,
                **{code: brand.peaks.calendar for code, brand in brands.items() if brand.peaks.calendar},
            },
            "windows": (
                *file.peaks.windows,
                *(
                    PeakWindow(brand=code, queue=window.queue, channel=window.channel, calendar=window.calendar)
                    for code, brand in brands.items()
                    for window in brand.peaks.windows
                ),
            ),
        }
    )
    return file.model_copy(
        update={"rules": {name: _by_own_hours(rule, brands) for name, rule in rules.items()}, "peaks": peaks}
    )


def _by_own_hours(rule: Rule, brands: Mapping[str, PolicyBrand]) -> Rule:
    if not rule.own_hours:
        return rule
    hours = {
        code: {
            channel: section.hours
            for channel, section in brand.channels.items()
            if rule.names(code, channel, None) is not None and section.hours != rule.calendar
        }
        for code, brand in brands.items()
    }
    return rule.model_copy(update={"hours": {code: differing for code, differing in hours.items() if differing}})


def place_in_brand(file: PolicyFile, brands: Mapping[str, PolicyBrand], field: str) -> tuple[str | None, str]:
    """Whose file a field of both together stands in (none: `sla.yaml`), and which field of it that is."""
    places = {
        f"rules.{code}_{name}": (code, f"promises.{name}") for code, brand in brands.items() for name in brand.promises
    }
    places |= {f"peaks.calendars.{code}": (code, "peaks.calendar") for code in brands}
    windows = [(code, at) for code, brand in brands.items() for at in range(len(brand.peaks.windows))]
    for place, (code, at) in enumerate(windows, start=len(file.peaks.windows)):
        places[f"peaks.windows.{place}"] = (code, f"peaks.windows.{at}")
    for start, (code, prefix) in places.items():
        if field == start or field.startswith(f"{start}."):
            return code, prefix + field.removeprefix(start)
    return None, field
