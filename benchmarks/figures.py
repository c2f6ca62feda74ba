"""How a figure is reported: one JSON line, with its baseline and the ratio, so that a noisy machine does not matter."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """`value` and `baseline` in `unit`; `ratio` is value / baseline. No baseline: there is nothing to compare with."""

    bench: str
    figure: str
    value: float
    unit: str
    baseline: float | None = None

    def line(self) -> str:
        ratio = None if not self.baseline else float(f"{self.value / self.baseline:.3g}")
        return json.dumps(
            {
                "bench": self.bench,
                "figure": self.figure,
                "value": round(self.value, 3),
                "unit": self.unit,
                "baseline": None if self.baseline is None else round(self.baseline, 3),
                "ratio": ratio,
            },
            ensure_ascii=False,
        )


def report(figure: Figure) -> None:
    sys.stdout.write(figure.line() + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """What the reader wants to know besides the figures; on standard error, so that figures can be piped."""
    sys.stderr.write(f"# {text}\n")
    sys.stderr.flush()
