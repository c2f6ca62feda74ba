"""`python -m services.intake` runs the service; `redact` cuts secrets out of lines, `parse` shows what would become of
a provider's request.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from shared.early_stop import end_when_told
from shared.redaction import redact


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m services.intake",
        description="Intake: customers' messages in, redacted and threaded into tickets. Without a command, runs the "
        "service, configured by the environment (see services/intake/settings.py and shared/settings.py).",
    )
    commands = parser.add_subparsers(dest="command", metavar="command")
    redacting = commands.add_parser(
        "redact",
        help="print lines with secrets cut",
        description="Print each line with its secrets cut: card numbers, CVV, passwords, PINs, verification codes, "
        "identity, passport and bank account numbers. Needs no broker and no database.",
    )
    redacting.add_argument("file", nargs="?", type=Path, metavar="FILE", help="UTF-8 text; standard input without it")
    redacting.add_argument("--counts", action="store_true", help="say on standard error how many of each kind were cut")
    parsing = commands.add_parser(
        "parse",
        help="show what would become of a provider's request or a mail",
        description="Print as JSON what would become of a request of a provider: status and body of the answer, and "
        "the messages in it, secrets cut. Stores and publishes nothing; needs no broker and no database.",
    )
    _add_parse_arguments(parsing)
    chosen = parser.parse_args(arguments)
    if chosen.command == "parse":
        return _parse(chosen)
    if chosen.command == "redact":
        return _redact(chosen.file, say_counts=chosen.counts)
    return _run()


def _add_parse_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("provider", help="whose request it is: the name in /v1/channels/<provider>/<brand>")
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="its body: of email a mail (.eml); - reads it from a pipe"
    )
    parser.add_argument("--method", default="POST", help="of the request (POST)")
    parser.add_argument("--query", default="", metavar="Q", help="what follows the ? of its address")
    parser.add_argument("--headers", metavar="H.json", help="its headers: a file with a JSON object")
    parser.add_argument("--body", metavar="B", help="its body: a file; the same as FILE")
    parser.add_argument(
        "--config",
        metavar="C.yaml",
        help="a brand's file, or just the fields of the adapter; ${NAME} is read from the environment "
        "(otherwise: the first brand of deploy/config/brands that has this provider)",
    )
    parser.add_argument("--brand", help="whose account it is, where the configuration does not say")
    parser.add_argument("--url", default="", help="the public address it was sent to, where the signature covers it")
    parser.add_argument("--received-at", metavar="TIME", help="when it came, ISO 8601 with an offset (now)")


def _parse(chosen: argparse.Namespace) -> int:
    # Imported here, so that redacting starts at once.
    from services.intake.commands.parse import run

    return run(chosen)


def _redact(file: Path | None, *, say_counts: bool) -> int:
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    try:
        if file is None:
            sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
            counts = _print_redacted(sys.stdin)
        else:
            with file.open(encoding="utf-8", errors="replace") as lines:
                counts = _print_redacted(lines)
    except BrokenPipeError:
        # Whoever reads has enough (`| head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"cannot read {file or 'standard input'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if say_counts:
        for kind, count in sorted(counts.items()):
            print(f"{kind} {count}", file=sys.stderr)
    return 0


def _print_redacted(lines: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for line in lines:
        redacted = redact(line.rstrip("\n"))
        counts.update(dict(redacted.counts))
        # Line by line, so that it can stand in a pipe behind `tail -f`.
        print(redacted.text, flush=True)
    return counts


def _run() -> int:
    # Imported here, so that redacting starts at once and needs no settings.
    end_when_told()
    from services.intake.app import build
    from shared.service import run
    from shared.yaml_files import ConfigError

    try:
        service = build()
    except ConfigError as error:
        print(f"intake cannot start:\n{error}", file=sys.stderr)
        return 2
    run(service)
    return 0


if __name__ == "__main__":
    sys.exit(main())
