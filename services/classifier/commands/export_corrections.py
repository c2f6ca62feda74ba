"""`export-corrections`: what agents corrected, as a file to train or to measure with."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError

from services.classifier import storage
from services.classifier.learning.corrections import example_of
from services.classifier.learning.examples import HEADER, Example
from services.classifier.settings import Settings
from shared.database import Database

_UNUSABLE: Final = 1
# A person waits for it, and nobody else does: the limit of the running service would be too short.
_STATEMENT_MOST: Final = timedelta(minutes=10)
_DESCRIPTION: Final = """\
Writes one example for each ticket whose category an agent has corrected: the message that had brought it to the wrong
category (secrets cut), the category that it has now, and the language. Reads the database of DATABASE_URL."""


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0, or 1 for a database that cannot be read or a file that cannot be written."""
    parser = argparse.ArgumentParser(
        prog="python -m services.classifier export-corrections",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.tsv")
    options = parser.parse_args(arguments)
    try:
        settings = Settings(database_statement_timeout_seconds=_STATEMENT_MOST.total_seconds())
        written, left_out = asyncio.run(export(settings, options.out))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        print(f"export-corrections: {'.'.join(map(str, first['loc']))}: {first['msg']}", file=sys.stderr)
        return _UNUSABLE
    except DBAPIError as error:
        print(f"the database of DATABASE_URL cannot be read: {error}", file=sys.stderr)
        return _UNUSABLE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else "the database of DATABASE_URL cannot be reached: "
        print(f"export-corrections: {where}{error.strerror or error}", file=sys.stderr)
        return _UNUSABLE
    print(f"{options.out}: {written:,} corrected tickets")
    if left_out:
        print(
            f"left out: {left_out:,}, whose message is not kept any more or has no text "
            "(CLASSIFIER_DECISIONS_KEPT_DAYS says how long)",
            file=sys.stderr,
        )
    return 0


async def export(settings: Settings, path: Path) -> tuple[int, int]:
    """Writes the file; how many tickets stand in it, and how many had to be left out. Raises OSError, DBAPIError."""
    database = Database(settings, service="classifier")
    examples: list[Example] = []
    left_out = 0
    try:
        async with database.transaction() as connection:
            async for ticket, kept in storage.corrected_tickets(connection):
                example = example_of(ticket, kept)
                if example is None:
                    left_out += 1
                else:
                    examples.append(example)
    finally:
        await database.close()
    await asyncio.to_thread(_write, path, examples)
    return len(examples), left_out


def _write(path: Path, examples: Iterable[Example]) -> None:
    lines = ["\t".join(HEADER), *(f"{one.text}\t{one.label}\t{one.language}" for one in examples)]
    beside = path.with_name(f".{path.name}.new")
    beside.write_text("\n".join([*lines, ""]), encoding="utf-8")
    beside.replace(path)
