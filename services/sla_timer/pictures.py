"""How a picture is written: matplotlib, from the extra `pictures`, loaded only when something is drawn."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH: Final = 100


class CannotDraw(Exception):
    """The picture cannot be drawn, or not be written; the message says what to do."""


def write_png(
    path: Path, width_pixels: int, height_pixels: int, draw: Callable[[Figure], None], *, text: str, edges: str
) -> None:
    """Have `draw` draw onto a new figure of that size and write it; `text`, `edges`: colours. Raises CannotDraw."""
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as NewFigure
        from PIL import Image
    except ImportError:
        raise CannotDraw(
            "pictures are drawn with matplotlib, which is not installed: pip install 'switchyard[pictures]'"
        ) from None
    with rc_context({"font.family": "DejaVu Sans", "text.color": text, "axes.edgecolor": edges}):
        figure = NewFigure(figsize=(width_pixels / DOTS_PER_INCH, height_pixels / DOTS_PER_INCH), dpi=DOTS_PER_INCH)
        FigureCanvasAgg(figure)
        draw(figure)
        buffer = BytesIO()
        figure.savefig(buffer, format="png")
        # A palette of 256 colours is a third of the bytes, and nobody sees the difference.
        picture = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        try:
            picture.save(path, "PNG", optimize=True)
        except OSError as error:
            raise CannotDraw(f"{path}: cannot be written: {error.strerror}") from None
