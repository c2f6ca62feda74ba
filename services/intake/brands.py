"""The adapters of all brands, as brands' files (`deploy/config/brands/`) and the environment say."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from services.intake.channels.base import Adapter
from services.intake.channels.registry import ADAPTERS
from shared.brands import BrandFile, load_brands
from shared.taxonomy import Channel
from shared.yaml_files import ConfigError, field_name, filled, line_in

logger = logging.getLogger(__name__)

AnyAdapter = Adapter[Any]


@dataclass(frozen=True, slots=True)
class Adapters:
    """Those whose settings are complete, by brand and channel; of the others, which variables are missing."""

    by_channel: Mapping[tuple[str, Channel], AnyAdapter]
    missing: Mapping[tuple[str, Channel], tuple[str, ...]]

    def by_provider(self, provider: str, brand: str) -> AnyAdapter | None:
        """The adapter that `/v1/channels/<provider>/<brand>` leads to."""
        kind = ADAPTERS.get(provider)
        adapter = self.by_channel.get((brand, kind.channel)) if kind else None
        return adapter if adapter is not None and adapter.provider == provider else None


def load_adapters(directory: Path, environment: Mapping[str, str]) -> Adapters:
    """All adapters. One whose variables are not set is off, so that an installation begins with the channels it has.

    Raises ConfigError, with file, line and field, for what no environment can mend.
    """
    found: dict[tuple[str, Channel], AnyAdapter] = {}
    missing: dict[tuple[str, Channel], tuple[str, ...]] = {}
    for brand, file in load_brands(directory).items():
        path = directory / f"{brand}.yaml"
        for channel, names in _missing(file, environment):
            missing[brand, channel] = names
        for channel, part in file.channels.items():
            if part.adapter is not None and (brand, channel) not in missing:
                found[brand, channel] = build(brand, channel, part.adapter, environment, path)
    for (brand, channel), names in missing.items():
        logger.info("%s of %s is off until these are set: %s", channel, brand, ", ".join(names))
    return Adapters(found, missing)


def _missing(file: BrandFile, environment: Mapping[str, str]) -> list[tuple[Channel, tuple[str, ...]]]:
    return [
        (channel, names)
        for channel, part in file.channels.items()
        if part.adapter is not None and (names := filled(part.adapter, environment)[1])
    ]


def build(
    brand: str, channel: Channel, section: Mapping[str, Any], environment: Mapping[str, str], path: Path
) -> AnyAdapter:
    """One adapter from its section of a brand's file. Raises ConfigError, never with a value: it may be a secret."""
    where = f"channels.{channel}.adapter"
    kind = ADAPTERS.get(section["provider"])
    if kind is None:
        raise ConfigError(
            _fault(path, f"{where}.provider", f"no such adapter; there are {', '.join(sorted(ADAPTERS))}")
        )
    if kind.channel is not channel:
        raise ConfigError(_fault(path, f"{where}.provider", f"{kind.provider} is an adapter of {kind.channel}"))
    fields, missing = filled({name: value for name, value in section.items() if name != "provider"}, environment)
    if missing:
        raise ConfigError("\n".join(_fault(path, where, f"set the environment variable {name}") for name in missing))
    try:
        return kind(brand, kind.config_type.model_validate(fields))
    except ValidationError as error:
        raise ConfigError(
            "\n".join(
                _fault(path, f"{where}.{field_name(item['loc'])}", str(item["msg"]).removeprefix("Value error, "))
                for item in error.errors(include_input=False, include_url=False)
            )
        ) from None


def _fault(path: Path, field: str, what: str) -> str:
    return f"{path}:{line_in(path, field)}: {field}: {what}"
