"""`python -m services.classifier classify [FILE]`: decisions for lines of text, without Kafka or a database."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TextIO

from services.classifier.domain.decide import Classifier, Decision, Message
from services.classifier.domain.rulebook import PRIORITIES, load_rulebook
from shared.events.channel import MAX_TEXT_CHARACTERS
from shared.redaction import redact
from shared.taxonomy import Channel
from shared.yaml_files import ConfigError

FACT_KEYS: Final = ("amount", "currency", "time", "method", "order_no", "phone", "email", "device", "error_code")
_AT_ONCE: Final = 256
_USAGE_ERROR: Final = 2
_DESCRIPTION: Final = """\
Reads one message per line: plain text, or a JSON object with `text` and optionally `subject`, `channel`, `brand`,
`sent_at` (with offset) and `vip`. Prints one JSON object per line, in order. Secrets are cut first, so no output
holds one; offsets are those of the text without them. A line that begins with `{` but is no JSON is plain text."""


class BadLine(ValueError):
    """A line that says it is an object and cannot be read as a message; the message names the line and the field."""


def message_of(line: str, number: int) -> Message:
    """The message that a line (without its line end) stands for. Raises BadLine."""
    if not line.lstrip("\ufeff \t").startswith("{"):
        return _message(line, number, {})
    try:
        data = json.loads(line.lstrip("\ufeff"))
    except (ValueError, RecursionError):  # somebody wrote a brace
        return _message(line, number, {})
    text = data.get("text")
    if not isinstance(text, str):
        raise BadLine(f"line {number}: `text` must be a string, is {_kind(text)}; add it, or write the message as is")
    return _message(text, number, data)


def _message(text: str, number: int, data: Mapping[str, Any]) -> Message:
    text = _as_the_contract_has_it(text)
    if len(text) > MAX_TEXT_CHARACTERS:
        raise BadLine(f"line {number}: `text` has {len(text)} characters, at most {MAX_TEXT_CHARACTERS} are read")
    subject = _string(data, "subject", number)
    return Message(
        text=redact(text).text,
        subject=redact(_as_the_contract_has_it(subject)).text if subject else None,
        channel=_channel(data, number),
        brand=_string(data, "brand", number),
        sent_at=_sent_at(data, number),
        vip=_vip(data, number),
    )


def _as_the_contract_has_it(text: str) -> str:
    """JSON can say half a character (`\\ud800`) and NUL; messages hold neither."""
    return text.replace("\x00", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _string(data: Mapping[str, Any], field: str, number: int) -> str | None:
    value = data.get(field)
    if value is not None and not isinstance(value, str):
        raise BadLine(f"line {number}: `{field}` must be a string, is {_kind(value)}")
    return value


def _channel(data: Mapping[str, Any], number: int) -> Channel | None:
    value = _string(data, "channel", number)
    try:
        return None if value is None else Channel(value)
    except ValueError:
        known = ", ".join(channel.value for channel in Channel)
        raise BadLine(f"line {number}: `channel` is none of {known}") from None


def _sent_at(data: Mapping[str, Any], number: int) -> datetime | None:
    value = _string(data, "sent_at", number)
    if value is None:
        return None
    try:
        sent_at = datetime.fromisoformat(value)
    except ValueError:
        raise BadLine(
            f"line {number}: `sent_at` must be an ISO 8601 date-time, e.g. 2026-11-05T10:00:00+08:00"
        ) from None
    if sent_at.tzinfo is None:
        raise BadLine(f"line {number}: `sent_at` must carry an offset, e.g. +08:00 or Z")
    return sent_at


def _vip(data: Mapping[str, Any], number: int) -> bool:
    value = data.get("vip", False)
    if not isinstance(value, bool):
        raise BadLine(f"line {number}: `vip` must be true or false, is {_kind(value)}")
    return value


def _kind(value: object) -> str:
    return "missing" if value is None else type(value).__name__


def as_json(decision: Decision) -> str:
    """One line of output: always the same keys, in this order."""
    facts = decision.facts.model_dump()
    return json.dumps(
        {
            "language": decision.language,
            "category": decision.category,
            "confidence": decision.confidence,
            "alternatives": [{"category": one.category, "score": one.score} for one in decision.alternatives],
            "points": [
                {"category": point.category, "start": point.start, "end": point.end, "text": point.text}
                for point in decision.points
            ],
            "priority": decision.priority,
            "reasons": [reason.model_dump() for reason in decision.reasons],
            "facts": {key: facts[key] for key in FACT_KEYS},
            "missing": list(decision.missing),
            "queue": decision.queue,
            "model": decision.model,
            "found_facts": [asdict(fact) for fact in decision.found_facts],
            "decided_by": decision.trace.decided_by,
            "trace": decision.trace.model_dump()["steps"],
        },
        ensure_ascii=False,
    )


def classify_lines(lines: Iterable[str], out: TextIO, classifier: Classifier, *, one_by_one: bool) -> None:
    """Writes one JSON object for each line. Raises BadLine at the first that cannot be read, after those before it.

    `one_by_one`: somebody, or a program, waits for the answer to each line; else several are decided together, which is
    cheaper.
    """
    at_once = 1 if one_by_one else _AT_ONCE
    waiting: list[Message] = []

    def answer() -> None:
        out.writelines(as_json(decision) + "\n" for decision in classifier.classify_all(waiting))
        waiting.clear()
        if one_by_one:
            out.flush()

    for number, line in enumerate(lines, start=1):
        try:
            waiting.append(message_of(line.removesuffix("\n").removesuffix("\r"), number))
        except BadLine:
            answer()
            raise
        if len(waiting) == at_once:
            answer()
    answer()


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0, or 2 for a bad line, file or rule."""
    parser = argparse.ArgumentParser(
        prog="python -m services.classifier classify",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="UTF-8; standard input where it is left out")
    parser.add_argument(
        "--priorities", type=Path, default=PRIORITIES, help="priority rules in place of the shipped ones"
    )
    options = parser.parse_args(arguments)
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):  # the same on every machine; a half character must not end the run
            stream.reconfigure(encoding="utf-8", errors="replace", newline="\n" if stream is sys.stdin else None)
    try:
        classifier = Classifier(load_rulebook(options.priorities))
        if options.file is None:
            classify_lines(sys.stdin, sys.stdout, classifier, one_by_one=True)
        else:
            with options.file.open(encoding="utf-8", errors="replace", newline="\n") as lines:
                classify_lines(lines, sys.stdout, classifier, one_by_one=False)
    except BrokenPipeError:  # the reader has seen enough
        sys.stderr.close()
        return 0
    except (BadLine, ConfigError, OSError) as error:
        sys.stdout.flush()
        print(f"classify: {error}", file=sys.stderr)  # noqa: T201 - this is the program's way to say it
        return _USAGE_ERROR
    return 0
