"""Reads the policies: `calendars.yaml` and `sla.yaml`. Every error names the file, the line and the field."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from services.sla_timer.domain.policies import Policies, PolicyError, PolicyFile
from shared.calendars import Calendar, load_calendars
from shared.yaml_files import ConfigError, line_in, load_yaml


def load_policies(sla: Path, calendars: Path, archive: Mapping[str, Calendar] | None = None) -> Policies:
    """`archive`: calendars of earlier versions, by version. Raises ConfigError."""
    known = load_calendars(calendars)
    file = load_yaml(sla, PolicyFile)
    try:
        return Policies(file, known, archive)
    except PolicyError as error:
        raise ConfigError(f"{sla}:{line_in(sla, error.field)}: {error}") from None
