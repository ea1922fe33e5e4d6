"""Look of all pictures of a report, and how a figure becomes a file. matplotlib is imported where it draws."""

from __future__ import annotations

import colorsys
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sfc.run.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
INK, FAINT, RULE = "#1f2328", "#6b7280", "#d5d9de"
_RUNS = ("#8a929c", "#0b6bcb", "#d9480f", "#2b8a3e", "#7048e8", "#c2255c")
_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called $5
    "axes.edgecolor": RULE,
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def run_colour(index: int) -> str:
    """The colour of a run in every picture; the baseline comes first and is grey."""
    return _RUNS[index % len(_RUNS)]


def class_colours(count: int) -> np.ndarray:
    """Colours of the classes, each far in hue from the ones before it.

    Returns:
        float [count + 1, 3] in [0, 1]: row k + 1 is foreground class k, row 0 a grey.
    """
    colours = [(0.6, 0.6, 0.6)]
    for index in range(count):
        hue = (0.02 + index * 0.61803398875) % 1.0  # steps of the golden section avoid all recent hues
        lightness, saturation = ((0.55, 0.85), (0.42, 0.75), (0.68, 0.80))[index % 3]
        colours.append(colorsys.hls_to_rgb(hue, lightness, saturation))
    return np.array(colours)


def shorten(words: str, length: int) -> str:
    """At most so many letters, the last one an ellipsis if some are missing."""
    return words if len(words) <= length else words[: length - 1] + "…"


@contextmanager
def styled() -> Iterator[None]:
    """Draws in the report's style, whatever the user's matplotlib settings are, and leaves those alone."""
    import matplotlib as mpl

    defaults: dict[Any, Any] = {name: value for name, value in mpl.rcParamsDefault.items() if name != "backend"}
    with mpl.rc_context({**defaults, **_STYLE}), warnings.catch_warnings():
        # Letters that the font lacks show as boxes; that is no reason to stop or to disturb the terminal.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def save(path: Path, figure: Figure) -> Path:
    """Writes a figure as PNG, atomically.

    Raises:
        SFCError: the file cannot be written.
    """
    content = io.BytesIO()
    with styled():
        figure.savefig(content, format="png", dpi=DPI, facecolor="white")
    with atomic_write(path) as file:
        file.write(content.getvalue())
    return path
