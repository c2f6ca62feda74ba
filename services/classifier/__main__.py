"""`python -m services.classifier` runs the service; `... classify [FILE]` decides lines of text, and needs neither
Kafka nor a database.
"""

from __future__ import annotations

import sys


def main() -> int:
    if len(sys.argv) > 1 and sys.argv[1] == "classify":
        from services.classifier import cli

        return cli.main(sys.argv[2:])
    if len(sys.argv) > 1:
        print(f"unknown command {sys.argv[1]!r}; known: classify (none runs the service)", file=sys.stderr)
        return 2
    # Imported here: the command above must start in a moment and without the service's libraries.
    from services.classifier.app import build
    from shared.service import run

    run(build())
    return 0


if __name__ == "__main__":
    sys.exit(main())
