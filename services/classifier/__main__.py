"""`python -m services.classifier` runs the service; with a command it decides lines of text, measures, or learns. Only
`export-corrections` needs a database, and no command needs Kafka.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

_COMMANDS: Final = {
    "classify": "services.classifier.cli",
    "evaluate": "services.classifier.commands.evaluate",
    "train": "services.classifier.commands.train",
    "export-corrections": "services.classifier.commands.export_corrections",
}


def main() -> int:
    if len(sys.argv) > 1:
        if sys.argv[1] not in _COMMANDS:
            print(
                f"unknown command {sys.argv[1]!r}; known: {', '.join(_COMMANDS)} (none runs the service)",
                file=sys.stderr,
            )
            return 2
        # A command must start in a moment and without the libraries of the service or of other commands.
        command = import_module(_COMMANDS[sys.argv[1]])
        try:
            status: int = command.main(sys.argv[2:])
            sys.stdout.flush()
        except BrokenPipeError:  # the reader has seen enough
            sys.stderr.close()
            return 0
        return status
    from services.classifier.app import build
    from shared.service import run

    run(build())
    return 0


if __name__ == "__main__":
    sys.exit(main())
