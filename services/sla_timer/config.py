"""Reads the policies: `calendars.yaml` and `sla.yaml`. Every error names the file, the line and the field."""

from __future__ import annotations

from pathlib import Path

from services.sla_timer.domain.policies import Policies, PolicyError, PolicyFile
from shared.calendars import load_calendars
from shared.yaml_files import ConfigError, load_yaml


def load_policies(sla: Path, calendars: Path) -> Policies:
    """Raises ConfigError."""
    known = load_calendars(calendars)
    file = load_yaml(sla, PolicyFile)
    try:
        return Policies(file, known)
    except PolicyError as error:
        raise ConfigError(f"{sla}: {error}") from None
