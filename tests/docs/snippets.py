"""The commands in the documents: every fenced block marked `sh`, also one that is indented below a list; code spans."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from tests.contract.docs import ROOT, documents

_FENCE: Final = re.compile(r"^( *)```sh\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_ANY_FENCE: Final = re.compile(r"^( *)```\w*\n.*?^\1```", re.MULTILINE | re.DOTALL)
_SPAN: Final = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_NOT_RUN: Final = Path(__file__).with_name("not_run.yaml")


@dataclass(frozen=True, slots=True)
class Snippet:
    """`line`: of its first command in `document`, a path below the repository."""

    document: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


@dataclass(frozen=True, slots=True)
class NotRun:
    """A snippet that the tests of the documents do not run: what it has, and who runs it or why nobody can here."""

    has: str
    run_by: str | None = None
    needs: str | None = None


def snippets(root: Path = ROOT) -> list[Snippet]:
    found = []
    for path in documents(root):
        text = path.read_text("utf-8")
        for fence in _FENCE.finditer(text):
            line = text.count("\n", 0, fence.start()) + 2
            found.append(Snippet(str(path.relative_to(root)), line, textwrap.dedent(fence[2])))
    return found


def not_run() -> list[NotRun]:
    return [NotRun(**entry) for entry in yaml.safe_load(_NOT_RUN.read_text("utf-8"))]


def exception_for(snippet: Snippet, exceptions: list[NotRun]) -> NotRun | None:
    return next((each for each in exceptions if re.search(each.has, snippet.text)), None)


@dataclass(frozen=True, slots=True)
class Inline:
    """A command within a sentence or a table: a code span."""

    document: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def inline(*beginnings: str, root: Path = ROOT) -> list[Inline]:
    """The commands that begin so."""
    found = []
    for path in documents(root):
        text = path.read_text("utf-8")
        # What is fenced keeps its lines, and nothing in them.
        prose = _ANY_FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), text)
        for span in _SPAN.finditer(prose):
            command = span[1].replace("\\|", "|")
            if command.startswith(beginnings):
                line = prose.count("\n", 0, span.start()) + 1
                found.append(Inline(str(path.relative_to(root)), line, command))
    return found
