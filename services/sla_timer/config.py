"""Reads the policies: `calendars.yaml`, `sla.yaml`, and what brands' files promise of their own.

Every error names the file, the line and the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.sla_timer.domain.brands import PolicyBrand, place_in_brand, unknown_hours, with_brands
from services.sla_timer.domain.policies import Policies, PolicyError, PolicyFile
from shared.brands import brand_paths, load_brands
from shared.calendars import Calendar, load_calendars
from shared.yaml_files import ConfigError, line_in, load_yaml


@dataclass(frozen=True, slots=True)
class PolicyFiles:
    """Where the policies stand. `brands`: the directory of the brands' files."""

    sla: Path
    calendars: Path
    brands: Path

    @property
    def all(self) -> tuple[Path, ...]:
        return (self.sla, self.calendars, *brand_paths(self.brands))


def load_policies(files: PolicyFiles, archive: Mapping[str, Calendar] | None = None) -> Policies:
    """`archive`: calendars of earlier versions, by version. Raises ConfigError."""
    calendars = load_calendars(files.calendars)
    file, brands = _read(files)
    faults = [
        _told(files.brands / f"{brand.brand}.yaml", field, what)
        for brand in brands.values()
        for field, what in unknown_hours(brand, calendars)
    ]
    if faults:
        raise ConfigError("\n".join(faults))
    try:
        return Policies(with_brands(file, brands), calendars, archive)
    except PolicyError as error:
        brand, field = place_in_brand(file, brands, error.field)
        path = files.sla if brand is None else files.brands / f"{brand}.yaml"
        raise ConfigError(_told(path, field, error.reason)) from None


def load_policy_file(files: PolicyFiles) -> PolicyFile:
    """What `sla.yaml` and the brands' files promise, as one. Raises ConfigError."""
    return with_brands(*_read(files))


def _read(files: PolicyFiles) -> tuple[PolicyFile, Mapping[str, PolicyBrand]]:
    file = load_yaml(files.sla, PolicyFile)
    for name, rule in file.rules.items():
        if rule.hours:
            raise ConfigError(_told(files.sla, f"rules.{name}.hours", "hours stand in the brands' files"))
    return file, load_brands(files.brands, PolicyBrand) if file.own_promises else {}


def _told(path: Path, field: str, what: str) -> str:
    return f"{path}:{line_in(path, field)}: {field}: {what}"
