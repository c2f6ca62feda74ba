"""The check of the documents, and each way in which it must fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract import docs


def test_the_documents_are_true() -> None:
    assert docs.check() == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "Makefile").write_text("demo: setup\n", "utf-8")
    (tmp_path / "docs").mkdir()
    (tmp_path / "examples").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[x](nowhere.md)", "links to nowhere.md"),
        ("run `make tea` first", "`make tea` is no target"),
        ("`ONCE=1 make tea`", "`make tea` is no target"),
        ("`python -m services.nobody`", "there is no such module"),
        ("python examples/nothing.py", "examples/nothing.py is not there"),
        ("set `KAFKA_BOOTSTRAP_SERVER`", "KAFKA_BOOTSTRAP_SERVER is no setting"),
        ("```json\n{not json}\n```", "a JSON snippet does not parse"),
        ("```python\nif\n```", "a Python snippet does not compile"),
        ("```sh\nif then\n```", "a shell snippet does not parse"),
    ],
)
def test_what_is_not_true_is_found(root: Path, text: str, problem: str) -> None:
    (root / "README.md").write_text(text + "\n", "utf-8")
    (found,) = docs.check(root)
    assert found.startswith("README.md: ")
    assert problem in found


def test_what_is_true_passes(root: Path) -> None:
    (root / "docs" / "a.md").write_text("[x](../Makefile) `make demo` `LOG_LEVEL`\n```json\n{}\n{}\n```\n", "utf-8")
    assert docs.check(root) == []
