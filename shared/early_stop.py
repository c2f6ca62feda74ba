"""SIGTERM before the server is there to take it."""

from __future__ import annotations

import signal
import sys


def end_when_told() -> None:
    """Until the server runs, SIGTERM ends the process, with 0. Call it before the long imports: for the first process
    of a container the signal has no default, so it would be lost, and the container be killed after its stop period.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
