"""`docs/configuration.md`, generated from the settings classes: what a page tells by hand is soon no longer true."""

from __future__ import annotations

import importlib
import types
import typing
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from shared.database import SERVICES
from shared.settings import CommonSettings

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "configuration.md"
_HEAD: Final = """\
# Configuration

Every setting is an environment variable. A service that is given a wrong value does not start, and names the
variable. This page is generated from the settings classes (`shared/settings.py`, `services/<service>/settings.py`) by
`make contracts`; `make check` says when it is out of date.

Secrets are marked: they appear in no log, no metric and no traceback. Give them to the process as your platform keeps
them, each service its own.

What leads and operators edit is YAML: brands and their channels ([brands](brands.md)), promises and calendars
([sla](sla.md)), agents ([agents](agents.md)), where notifications go ([notifications](notifications.md)). These files
hold no secrets either; they name environment variables, which are not listed here: `INTAKE_KEY_...` and what
channels' adapters ask for ([channels](channels/README.md)), `DESK_TOKEN_...`, `NOTIFIER_..._URL` and
`NOTIFIER_..._SECRET`.
"""
_BOUNDS: Final[Mapping[type, tuple[str, str]]] = {
    Ge: ("ge", "from {}"),
    Gt: ("gt", "more than {}"),
    Le: ("le", "to {}"),
    Lt: ("lt", "less than {}"),
}


def page() -> str:
    """The whole page. Raises ValueError, naming it, where a setting does not say what it means."""
    common = CommonSettings.model_fields
    parts = [_HEAD, "## All services\n", _table(common)]
    for service in SERVICES:
        fields = importlib.import_module(f"services.{service}.settings").Settings.model_fields
        parts += [f"## {service}\n", _table({n: f for n, f in fields.items() if not _is_common(n, f)})]
    return "\n".join(parts)


def _is_common(name: str, field: FieldInfo) -> bool:
    common = CommonSettings.model_fields.get(name)
    return common is not None and common.default == field.default


def _table(fields: Mapping[str, FieldInfo]) -> str:
    rows = [
        f"| `{name.upper()}` | {_values(field)} | {_default(field)} | {_meaning(name, field)} |"
        for name, field in fields.items()
    ]
    return "\n".join(["| variable | values | default | meaning |", "|---|---|---|---|", *rows, ""])


def _meaning(name: str, field: FieldInfo) -> str:
    if not field.description:
        raise ValueError(f"{name} has no description: say in its Field what it means, with its unit")
    return field.description.replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**must be set**"
    match field.get_default(call_default_factory=True):
        case None | "":
            return "none"
        case bool() as yes:
            return f"`{str(yes).lower()}`"
        case SecretStr() as secret:
            return f"`{secret.get_secret_value()}`"
        case Path() as path:
            return f"`{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}`"
        case frozenset() | tuple() | list() as several:
            return f"`{','.join(map(str, several))}`" if several else "none"
        case float() as number:
            return f"`{number:g}`"
        case other:
            return f"`{other}`"


def _values(field: FieldInfo) -> str:
    kinds = list(dict.fromkeys(_kinds(field.annotation)))
    bounds = [
        text.format(f"{getattr(limit, name):g}")
        for limit in _limits(field)
        for kind, (name, text) in _BOUNDS.items()
        if isinstance(limit, kind)
    ]
    return " or ".join(kinds) + (f", {' '.join(bounds)}" if bounds else "")


def _limits(field: FieldInfo) -> Iterator[Any]:
    """Of the field, and inside of an optional one."""
    for part in (field, *typing.get_args(field.annotation)):
        for limit in getattr(part, "metadata", getattr(part, "__metadata__", ())):
            yield from getattr(limit, "metadata", (limit,))


def _kinds(annotation: Any) -> Iterator[str]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _kinds(typing.get_args(annotation)[0])
    elif origin is Literal:
        yield from (f"`{value}`" for value in typing.get_args(annotation))
    elif origin in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            if part is not type(None):
                yield from _kinds(part)
    elif origin in (tuple, list, frozenset, set):
        yield "several, separated by commas"
    elif isinstance(annotation, type) and issubclass(annotation, str):
        yield "text"
    elif annotation is SecretStr:
        yield "secret"
    else:
        yield {bool: "`true` or `false`", int: "whole number", float: "number", Path: "path", timedelta: "duration"}[
            annotation
        ]


def check() -> list[str]:
    if not PAGE.exists() or PAGE.read_text("utf-8") != page():
        return ["docs/configuration.md does not list the settings as they are: run `make contracts`"]
    return []


def write() -> list[str]:
    PAGE.write_text(page(), "utf-8")
    return ["docs/configuration.md"]
