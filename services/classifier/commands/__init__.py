"""Commands of `python -m services.classifier`, one module each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from services.classifier.learning.examples import BadFile
from shared.yaml_files import ConfigError

_CANNOT: Final = 2


def finish(command: str, work: Callable[[], None]) -> int:
    """Does the work. The exit status: 0, or 2 and a line that tells which file cannot be used or what is missing."""
    try:
        work()
    except (BadFile, ConfigError, OSError) as error:
        print(f"{command}: {error}", file=sys.stderr)
        return _CANNOT
    except ImportError as error:
        missing = "" if error.name is None else f"{error.name} is not installed: pip install 'switchyard[training]'"
        print(f"{command}: {missing or error}", file=sys.stderr)
        return _CANNOT
    return 0
