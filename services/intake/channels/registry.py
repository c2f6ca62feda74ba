"""All adapters, by the name of their provider."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

from services.intake.channels.base import Adapter

_ALL: Final[tuple[type[Adapter[Any]], ...]] = ()
ADAPTERS: Final = MappingProxyType({adapter.provider: adapter for adapter in _ALL})
