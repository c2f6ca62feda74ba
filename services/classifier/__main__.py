"""`python -m services.classifier` runs the service; with a command it decides lines of text, measures, or learns. Only
`export-corrections` needs a database, and no command needs Kafka.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import Final

from shared.early_stop import end_when_told

_COMMANDS: Final = {
    "classify": "services.classifier.cli",
    "evaluate": "services.classifier.commands.evaluate",
    "train": "services.classifier.commands.train",
    "rebuild": "services.classifier.commands.rebuild",
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
    end_when_told()
    from services.classifier.app import build
    from shared.service import run
    from shared.yaml_files import ConfigError

    try:
        service = build()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    # Rules and model are hundreds of thousands of objects that live as long as the process: walking them in search of
    # garbage stopped everything for a quarter of a second, again and again.
    gc.collect()
    gc.freeze()
    run(service)
    return 0


if __name__ == "__main__":
    sys.exit(main())
