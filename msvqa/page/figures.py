"""Figures as inline SVG: curves of a stage, accuracies per question type, points of examples.

The colours are those of Okabe and Ito, which colour-blind readers can tell apart; lines differ in
dash as well. Text stays text, so that it takes the font of the page and can be searched.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
)

from msvqa.evaluators.evaluator import Scatter

BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
AMBER = "#e69f00"
INK, GRID, EDGE, FAINT = "#1f2933", "#e4e7eb", "#b8bfc8", "#9aa5b1"
PERCENT = "\N{NO-BREAK SPACE}%"
STYLES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PURPLE, ":"))
FEW_POINTS = 40
"""Curves of at most so many points show each of them."""
LABEL_LETTERS = 24
MAX_TYPES = 24
"""Bars for the largest types; a user's own table may have hundreds."""

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # labels come from annotations and may hold a dollar sign
    "axes.edgecolor": EDGE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "msvqa",  # the same figure gets the same text
}


@dataclass(frozen=True)
class Line:
    """One curve."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False
    """Drawn thin and in grey, as background of the others."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Curves that share their axes."""

    title: str
    lines: Sequence[Line]
    best: tuple[float, float] | None = None
    """Step and value of the best checkpoint."""
    percent: bool = False
    logarithmic: bool = False
    top: float | None = None
    """The axis goes from 0 to at least this value."""


@dataclass(frozen=True, kw_only=True)
class TypeAccuracy:
    """Accuracy on the questions of one type; numbers are None where there are no questions."""

    kind: str
    n: int
    accuracy: float | None
    low: float | None
    high: float | None
    question_only: float | None

    @property
    def gain(self) -> float | None:
        """Accuracy above the question-only baseline."""
        if self.accuracy is None or self.question_only is None:
            return None
        return self.accuracy - self.question_only


def draw_panel(panel: Panel) -> Markup:
    """Return the curves over the optimizer steps."""
    return draw_svg((3.4, 2.15), lambda axes: _curves(axes, panel), panel.title)


def draw_types(rows: Sequence[TypeAccuracy]) -> Markup:
    """Return bars of accuracy with intervals beside those of the question-only baseline."""
    shown = [row for row in rows if row.n][:MAX_TYPES]
    size = (5.6, 0.75 + 0.5 * len(shown))
    return draw_svg(size, lambda axes: _bars(axes, shown), "Accuracy per question type")


def draw_scatter(scatter: Scatter) -> Markup:
    """Return one faint point for each example, so that many in one place are dark."""
    return draw_svg((5.6, 3.6), lambda axes: _points(axes, scatter), scatter.title)


def _points(axes: Axes, scatter: Scatter) -> None:
    axes.plot(scatter.x, scatter.y, "o", color=BLUE, ms=4, mew=0, alpha=0.3)
    axes.set_xlabel(scatter.columns[0])
    axes.set_ylabel(scatter.columns[1])
    axes.grid()


def _curves(axes: Axes, panel: Panel) -> None:
    styles = iter(STYLES * (1 + len(panel.lines) // len(STYLES)))
    for line in panel.lines:
        color, dash = (FAINT, "-") if line.faint else next(styles)
        axes.plot(
            line.x, line.y, dash, color=color, label=line.label, lw=1.0 if line.faint else 1.6,
            marker="o" if len(line.x) <= FEW_POINTS and not line.faint else None, ms=2.6,
        )  # fmt: skip
    if panel.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    if panel.top is not None:
        axes.set_ylim(0, max(panel.top, axes.get_ylim()[1]))
    if panel.best is not None:
        step, value = panel.best
        axes.axvline(step, color=INK, lw=0.7, ls=(0, (2, 2)))
        axes.plot([step], [value], marker="*", ms=11, color=ORANGE, mec="white", mew=0.8, zorder=5)
    if panel.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=PERCENT))
    axes.set_xlim(0, 1.03 * max((max(line.x) for line in panel.lines if line.x), default=1.0))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("step", labelpad=1)
    axes.grid(axis="y")
    if len(panel.lines) > 1:
        axes.legend(fontsize=8, handlelength=1.8, labelspacing=0.2, borderaxespad=0.1)


def _bars(axes: Axes, rows: Sequence[TypeAccuracy]) -> None:
    places = range(len(rows))
    accuracy = [row.accuracy or 0.0 for row in rows]
    baseline = [row.question_only or 0.0 for row in rows]
    below = [
        value - (value if row.low is None else min(row.low, value))
        for row, value in zip(rows, accuracy, strict=True)
    ]
    above = [
        (value if row.high is None else max(row.high, value)) - value
        for row, value in zip(rows, accuracy, strict=True)
    ]
    axes.barh(
        [p - 0.19 for p in places], accuracy, 0.36, xerr=(below, above), color=BLUE, label="model",
        error_kw={"ecolor": INK, "elinewidth": 1.1, "capsize": 2.5},
    )  # fmt: skip
    axes.barh(
        [p + 0.19 for p in places], baseline, 0.36, color=AMBER, label="question-only baseline"
    )
    axes.set_yticks(places, [f"{_short(row.kind)}  (n = {row.n:,})" for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=PERCENT))
    axes.grid(axis="x")
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.1, fontsize=9
    )


def _short(label: str) -> str:
    return label if len(label) <= LABEL_LETTERS else label[: LABEL_LETTERS - 1] + "…"


def draw_svg(size: tuple[float, float], draw: Callable[[Axes], None], label: str) -> Markup:
    """Return what a function draws as inline SVG; the label is read aloud."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        text = StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    # Groups of several figures have the same names, which must be unique in a page.
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing)
    opening = Markup('<svg role="img" aria-label="{}"').format(label)
    return opening + Markup(drawing.removeprefix("<svg"))
