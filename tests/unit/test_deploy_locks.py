"""The lock files: complete, checked by hashes, the same versions in tests as in the image, no address of an index."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

import pytest

from deploy.processes import REPOSITORY

RUNTIME: Final = (REPOSITORY / "requirements.lock").read_text()
DEVELOPMENT: Final = (REPOSITORY / "requirements-dev.lock").read_text()
PROJECT: Final[dict[str, Any]] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def pins(lock: str) -> dict[str, str]:
    """Name -> version, environment marker and hashes, as they stand in the lock."""
    found = re.findall(r"^([a-z0-9-]+)(==.+(?:\\\n.+)*)", lock, re.M)
    return {name: re.sub(r"\s+", " ", rest) for name, rest in found}


def named(requirements: list[str]) -> set[str]:
    names = {re.split(r"[^A-Za-z0-9._-]", requirement)[0] for requirement in requirements}
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names} - {PROJECT["name"]}


@pytest.mark.parametrize("lock", [RUNTIME, DEVELOPMENT], ids=["runtime", "development"])
def test_every_pin_has_hashes_and_nothing_else_stands_there(lock: str) -> None:
    assert (
        re.sub(r"^[a-z0-9-]+==[^\s;]+( ; [^\\]+?)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n", "", lock, flags=re.M) == ""
    )
    assert "://" not in lock


def test_what_the_project_asks_for_is_pinned() -> None:
    optional = PROJECT["optional-dependencies"]
    assert named(PROJECT["dependencies"]) <= set(pins(RUNTIME))
    assert named(PROJECT["dependencies"] + optional["embedded"] + optional["dev"]) <= set(pins(DEVELOPMENT))


def test_tests_run_with_the_versions_of_the_image() -> None:
    assert pins(RUNTIME).items() <= pins(DEVELOPMENT).items()
