"""What the documents say, checked against what is there: links, commands, modules, settings, snippets."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shared.settings import CommonSettings

ROOT: Final = Path(__file__).parents[2]
_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
_MAKE: Final = re.compile(r"(?:^|`)(?:[A-Z_]+=\S+ )*make ([a-z][a-z-]*)", re.MULTILINE)
_MODULE: Final = re.compile(r"python -m ((?:services|shared|deploy|tests|benchmarks)(?:\.\w+)*)")
_SCRIPT: Final = re.compile(r"python (examples/\w+\.py)")
_TARGET: Final = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
_SETTING: Final = re.compile(r"`((?:KAFKA|DATABASE|HTTP|METRICS|LOG)_[A-Z_]+)`")


def documents(root: Path = ROOT) -> list[Path]:
    return sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md"), *(root / "examples").glob("*.md")])


def check(root: Path = ROOT) -> list[str]:
    """What is wrong, with the document it stands in; empty when all documents are true."""
    return [f"{path.relative_to(root)}: {problem}" for path in documents(root) for problem in _problems(path, root)]


def _problems(path: Path, root: Path) -> Iterator[str]:
    text = path.read_text("utf-8")
    for target in _LINK.findall(text):
        if not (path.parent / target).exists():
            yield f"links to {target}, which is not there"
    targets = set(_TARGET.findall((root / "Makefile").read_text("utf-8")))
    for command in _MAKE.findall(text):
        if command not in targets:
            yield f"`make {command}` is no target of the Makefile"
    for module in _MODULE.findall(text):
        if importlib.util.find_spec(module) is None:
            yield f"`python -m {module}`: there is no such module"
    for script in _SCRIPT.findall(text):
        if not (root / script).exists():
            yield f"{script} is not there"
    settings = {name.upper() for name in CommonSettings.model_fields}
    for name in _SETTING.findall(text):
        if name not in settings:
            yield f"{name} is no setting"
    for language, snippet in _FENCE.findall(text):
        yield from _snippet_problems(language, snippet)


def _snippet_problems(language: str, snippet: str) -> Iterator[str]:
    if language == "json":
        try:
            for line in [snippet] if snippet.startswith("{\n") else snippet.splitlines():
                json.loads(line)
        except ValueError as error:
            yield f"a JSON snippet does not parse: {error}"
    elif language == "python":
        try:
            compile(snippet, "snippet", "exec")
        except SyntaxError as error:
            yield f"a Python snippet does not compile: {error}"
    elif language == "sh":
        parsed = subprocess.run(["bash", "-n"], input=snippet, text=True, capture_output=True, check=False)
        if parsed.returncode:
            yield f"a shell snippet does not parse: {parsed.stderr.strip()}"
