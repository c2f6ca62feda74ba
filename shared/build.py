"""Which version of Switchyard runs."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

_PROJECT: Final = Path(__file__).resolve().parent.parent / "pyproject.toml"


@cache
def version() -> str:
    """As the installed package says, or pyproject.toml beside the source; `unknown` where neither is."""
    try:
        return metadata.version("switchyard")
    except metadata.PackageNotFoundError:
        pass
    try:
        project = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]
        return str(project["version"])
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return "unknown"
