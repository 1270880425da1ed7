"""Figures in files: what all plots share, whatever they draw.

matplotlib is an extra and is imported where it draws; nothing of its state in this process changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from forwardpass.errors import UsageError, missing_extra
from forwardpass.showing.wording import near, visible

Axes: TypeAlias = Any
"""matplotlib's, which is optional: no name of it is known here."""
SKY, PURPLE, GREY = "#56B4E9", "#CC79A7", "#666666"
"""Colours beside those of the terminal."""
_FORMATS: Final = (".svg", ".png")
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "forwardpass",
}


def require(path: str) -> None:
    """Raise UsageError for a file of another kind, MissingExtraError without the library."""
    if Path(path).suffix.lower() not in _FORMATS:
        raise UsageError(f"--plot {path}: plots are written as {' or '.join(_FORMATS)}")
    try:
        import matplotlib as matplotlib
    except ImportError as error:
        raise missing_extra("matplotlib", "plot", "a plot") from error


@contextmanager
def drawn(path: str, height: float, width: float = 10.0) -> Generator[Any]:
    """A figure, in inches, that is written to `path` when the block ends.

    Raises UsageError for another kind of file or one that cannot be written, MissingExtraError
    without matplotlib.
    """
    require(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    is_svg = Path(path).suffix.lower() == ".svg"
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        try:
            figure.savefig(path, dpi=150, metadata={"Date": None} if is_svg else None)
        except OSError as error:
            raise UsageError(f"--plot {path}: it cannot be written: {error.strerror}") from error


def titled(figure: Any, title: str) -> None:
    """A title above all that it holds."""
    figure.suptitle(literal(title), x=0.01, ha="left", fontsize=9, color=GREY)


def literal(text: str) -> str:
    """Names of the user's, which are no formulas."""
    return visible(near(text)).replace("$", r"\$")


def labelled(axis: Any, form: Callable[[float], str]) -> None:
    """Label an axis with numbers as we write them."""

    def said(value: float, place: int) -> str:
        return re.sub(r"(\.\d*?)0+(?= |$)", r"\1", form(float(value))).replace(". ", " ")

    axis.set_major_formatter(said)
