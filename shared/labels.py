"""Values of metrics' labels that come from outside, brought into closed sets: whoever sends a thousand names makes no
thousand series.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shared.brands import BRANDS_DIRECTORY, brand_paths

NONE: Final = "none"
"""Of what is not known yet, e.g. the queue of a ticket that has not been routed."""
OTHER: Final = "other"
"""Of what belongs to no closed set."""

_LOOK_AGAIN_SECONDS: Final = 60.0
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Brands:
    """Codes of the brands that have a file. A code that is unknown may be that of a new file: the directories are
    looked at again, once a minute at most.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._directories: set[Path] = set()
        self._known: frozenset[str] = frozenset()
        self._looked_at = float("-inf")

    def add(self, directory: Path) -> None:
        if directory not in self._directories:
            self._directories.add(directory)
            self._look()

    def label(self, brand: str | None) -> str:
        """The code itself if it has a file, else `other`; `none` for none."""
        if brand is None:
            return NONE
        if brand not in self._known and self._clock() - self._looked_at >= _LOOK_AGAIN_SECONDS:
            self._look()
        return brand if brand in self._known else OTHER

    def _look(self) -> None:
        self._known = frozenset(path.stem for directory in self._directories for path in brand_paths(directory))
        self._looked_at = self._clock()


BRANDS: Final = Brands()
BRANDS.add(BRANDS_DIRECTORY)


def brand_label(brand: str | None) -> str:
    """See `Brands.label`; of this process."""
    return BRANDS.label(brand)


def method_label(method: str) -> str:
    """A method of HTTP, or `other`: a client may invent some."""
    return method if method in _METHODS else OTHER
