"""Reads the notifier's files: the texts and `notifications.yaml`, whose references the environment fills."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import model_validator

from services.notifier.domain.outputs import Fault, Outputs, refused
from services.notifier.domain.texts import TextBook, Texts
from shared.yaml_files import load_yaml

TEXTS_DIRECTORY: Final = Path(__file__).parent / "texts"

# ${NAME}, or ${NAME:-value} where it may be left out.
_REFERENCE: Final = re.compile(r"\$\{([A-Z][A-Z0-9_]*)(?::-([^}]*))?\}")


def load_texts(directory: Path = TEXTS_DIRECTORY) -> Texts:
    """Raises shared.yaml_files.ConfigError with file, line and field."""
    return Texts(zh=load_yaml(directory / "zh.yaml", TextBook), en=load_yaml(directory / "en.yaml", TextBook))


def load_outputs(path: Path, environment: Mapping[str, str]) -> Outputs:
    """`environment` fills the file's references. An empty optional one in a list drops its entry.

    Raises shared.yaml_files.ConfigError with file, line and field, never with a value: it may be a secret.
    """

    class Referring(Outputs):
        @model_validator(mode="before")
        @classmethod
        def _fill_references(cls, content: Any) -> Any:
            if missing := list(_missing(content, environment, ())):
                raise refused(missing)
            return _filled(content, environment)

    return load_yaml(path, Referring)


def _missing(value: Any, environment: Mapping[str, str], field: tuple[str | int, ...]) -> Iterator[Fault]:
    if isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _missing(item, environment, (*field, name))
    elif isinstance(value, str):
        for name, otherwise in ((found[1], found[2]) for found in _REFERENCE.finditer(value)):
            if otherwise is None and not environment.get(name):
                yield field, f"set the environment variable {name}"


def _filled(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(item, environment) for name, item in value.items()}
    if isinstance(value, list):
        return [item for item in (_filled(item, environment) for item in value) if item != ""]
    if isinstance(value, str):
        return _REFERENCE.sub(lambda found: environment.get(found[1]) or found[2] or "", value)
    return value
