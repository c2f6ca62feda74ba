"""Reads the notifier's files: the texts and `notifications.yaml`. Every error names the file and the field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from services.notifier.domain.outputs import Outputs
from services.notifier.domain.texts import Texts
from shared.cloudevents import describe

TEXTS_DIRECTORY: Final = Path(__file__).parent / "texts"

# ${NAME}, or ${NAME:-value} where it may be left out.
_REFERENCE: Final = re.compile(r"\$\{([A-Z][A-Z0-9_]*)(?::-([^}]*))?\}")

M = TypeVar("M", bound=BaseModel)


class ConfigError(Exception):
    """A file of the notifier cannot be used; the message names the file, the field and what is wrong, never a value."""


def load_texts(directory: Path = TEXTS_DIRECTORY) -> Texts:
    books = {language: _read(directory / f"{language}.yaml") for language in ("zh", "en")}
    return _validated(Texts, books, directory)


def load_outputs(path: Path, environment: Mapping[str, str]) -> Outputs:
    """`environment` fills the file's references. An empty optional reference in a list drops its entry."""
    return _validated(Outputs, _expanded(_read(path), environment, path, ()), path)


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}: is not YAML{where}: {getattr(error, 'problem', None) or 'unreadable'}") from None


def _validated(model: type[M], content: Any, path: Path) -> M:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error)}") from None


def _expanded(value: Any, environment: Mapping[str, str], path: Path, field: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item, environment, path, (*field, str(key))) for key, item in value.items()}
    if isinstance(value, list):
        items = [_expanded(item, environment, path, (*field, str(index))) for index, item in enumerate(value)]
        return [item for item in items if item != ""]
    if not isinstance(value, str):
        return value

    def content(found: re.Match[str]) -> str:
        name, otherwise = found.groups()
        known = environment.get(name)
        if known:
            return known
        if otherwise is None:
            raise ConfigError(f"{path}: {'.'.join(field)}: set the environment variable {name}")
        return otherwise

    return _REFERENCE.sub(content, value)
