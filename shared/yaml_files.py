"""Policies in YAML, read into pydantic models; what is wrong is told with file, line and field."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

M = TypeVar("M", bound=BaseModel)

Fault = tuple[tuple[str | int, ...], str]
"""The way to a field from the top of the file, and what is wrong with it."""

# ${NAME}, or ${NAME:-value} where it may be left out.
_REFERENCE: Final = re.compile(r"\$\{([A-Z][A-Z0-9_]*)(?::-([^}]*))?\}")


class ConfigError(ValueError):
    """A configuration file cannot be used. The message has one line per fault: `file:line: field: what is wrong`."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice: YAML would silently keep the last, and half a policy would be gone.

    Leaves dates as text for pydantic, which names the field of one that cannot be.
    """

    yaml_implicit_resolvers: ClassVar[Any] = {  # type: ignore[misc]
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path, model: type[M]) -> M:
    """Read `path` into `model`. Raises ConfigError."""
    try:
        source = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8; save it as UTF-8") from None
    try:
        content = yaml.load(source, Loader=_Loader)  # noqa: S506 - a SafeLoader
        tree = yaml.compose(source, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else f"{path}"
        raise ConfigError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(
                f"{path}:{line_of(tree, item['loc'])}: {field_name(item['loc'])}: {_message(item)}"
                for item in error.errors()
            )
        ) from None


def field_name(location: Sequence[str | int]) -> str:
    return ".".join(str(part) for part in location if part != "[key]") or "the file"


def line_of(tree: yaml.Node | None, location: Sequence[str | int]) -> int:
    """The line (from 1) of the deepest part of `location` that the file has."""
    line, node = 1, tree
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and str(part).isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
        else:
            break
    return line


def line_in(path: Path, field: str) -> int:
    """The line (from 1) of a field like `rules.chat.calendar` in a file that has been read before."""
    return line_of(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), field.split("."))


def _message(item: Any) -> str:
    return str(item["msg"]).removeprefix("Value error, ")


def refused(faults: Sequence[Fault]) -> ValidationError:
    """To be raised by a validator of the whole file: each fault is told at its own field, and so with its own line."""
    details: list[InitErrorDetails] = [
        {"type": PydanticCustomError("refused", "{why}", {"why": why}), "loc": field, "input": None}
        for field, why in faults
    ]
    return ValidationError.from_exception_data("file", details, hide_input=True)


def filled(value: Any, environment: Mapping[str, str]) -> tuple[Any, tuple[str, ...]]:
    """`value` with its references to the environment filled, and the names of the variables that it needs and that are
    not set (or empty). An entry that an optional reference leaves empty is dropped, in a list as in a mapping: an empty
    text is no secret.
    """
    missing = dict.fromkeys(name for _, name in missing_references(value, environment))
    return _filled(value, environment), tuple(missing)


def missing_references(
    value: Any, environment: Mapping[str, str], field: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Each reference that must be set and is not: the way to its field, starting with `field`, and the name."""
    if isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from missing_references(item, environment, (*field, name))
    elif isinstance(value, str):
        for name, otherwise in ((found[1], found[2]) for found in _REFERENCE.finditer(value)):
            if otherwise is None and not environment.get(name):
                yield field, name


def _filled(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        items = ((name, item, _filled(item, environment)) for name, item in value.items())
        return {name: new for name, old, new in items if new != "" or old == ""}
    if isinstance(value, list):
        return [item for item in (_filled(item, environment) for item in value) if item != ""]
    if isinstance(value, str):
        return _REFERENCE.sub(lambda found: environment.get(found[1]) or found[2] or "", value)
    return value
