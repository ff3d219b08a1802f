"""The HTML page of a search: parallel coordinates, curves, and the table of all trials."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator

from msvqa.engine.sweep import Best, Sweep, Trial
from msvqa.files import written_aside
from msvqa.page.figures import FAINT, INK, ORANGE, draw_svg
from msvqa.page.template import fill
from msvqa.run import Run
from msvqa.storage import join

PAGE = "search.html"
COLORS = "viridis_r"
"""The best trial is dark; the scale is readable for colour-blind people and in print."""
LIGHTEST = 0.15
"""Where the worst trial is on the scale: what lies below is too pale for white paper."""
LABEL_LETTERS = 22
LABELLED_OPTIONS = 12
WIDTH, WIDTH_PER_AXIS = 8.0, 1.7


@dataclass(frozen=True)
class Coordinate:
    """One axis of the parallel coordinates: where values are between 0 and 1, and its labels."""

    title: str
    places: Sequence[float | None]
    """One for every trial."""
    ticks: Mapping[float, str]


def write_page(sweep: Sweep, trials: Sequence[Trial], best: Best | None) -> str:
    """Write the page into the sweep and return its place; `trials` are ordered, the best first."""
    text = fill(
        "search.html.j2",
        sweep=sweep,
        trials=trials,
        best=best,
        coordinates=_draw_coordinates(sweep, trials),
        curves=_draw_curves(sweep, trials),
        show=show_value,
        written_at=datetime.now(timezone.utc),
    )
    page = sweep.path / PAGE
    with written_aside(page) as aside:
        aside.write_text(text, encoding="utf-8")
    sweep.folder.put(PAGE)
    return join(sweep.location, PAGE)


def show_value(value: Any) -> str:
    """Return a value of a recipe as a short text."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def coordinates(sweep: Sweep, trials: Sequence[Trial]) -> list[Coordinate]:
    """Return an axis for every searched field, and one for the metric."""
    axes = []
    for key, field in sweep.space.fields.items():
        values = [trial.values.get(key) for trial in trials]
        title = ".".join(key.split(".")[-2:])
        if field.limits:
            axes.append(_of_numbers(title, values, logarithmic=field.log_uniform is not None))
        else:
            axes.append(_of_options(title, values, field.options or ()))
    metric = [trial.value for trial in trials]
    return [*axes, _of_numbers(f"{sweep.goal.metric} (val)", metric, logarithmic=False)]


def _of_numbers(title: str, values: Sequence[Any], *, logarithmic: bool) -> Coordinate:
    scaled = [
        None if value is None else math.log(value) if logarithmic else float(value)
        for value in values
    ]
    known = [value for value in scaled if value is not None]
    if not known:
        return Coordinate(title, scaled, {})
    low, high = min(known), max(known)
    size = high - low or 1.0
    middle = (low + high) / 2
    ticks = {(at - low) / size: show_value(math.exp(at) if logarithmic else at)
             for at in (low, middle, high)}  # fmt: skip
    return Coordinate(title, [None if v is None else (v - low) / size for v in scaled], ticks)


def _of_options(title: str, values: Sequence[Any], options: Sequence[Any]) -> Coordinate:
    step = 1.0 / max(1, len(options) - 1)
    shown = list(map(show_value, options))
    places = [shown.index(show_value(v)) * step if show_value(v) in shown else None for v in values]
    every = -(-len(shown) // LABELLED_OPTIONS)
    ticks = {place * step: text for place, text in enumerate(shown) if place % every == 0}
    return Coordinate(title, places, ticks)


def _draw_coordinates(sweep: Sweep, trials: Sequence[Trial]) -> Markup:
    axes = coordinates(sweep, trials)
    return draw_svg(
        (max(WIDTH, WIDTH_PER_AXIS * len(axes)), 3.6),
        lambda plot: _parallel(plot, axes, _colors(trials)),
        "Parallel coordinates: one line for every trial through its values to the metric",
    )


def _parallel(plot: Axes, axes: Sequence[Coordinate], colors: Sequence[str]) -> None:
    for number, axis in enumerate(axes):
        plot.plot([number, number], [0, 1], color=INK, lw=0.8)
        for place, text in axis.ticks.items():
            # Beyond the ends of an axis, where no line crosses them; between them, beside it.
            end = {0.0: (0.0, -0.03, "center", "top"), 1.0: (0.0, 1.03, "center", "bottom")}
            shift, at, across, along = end.get(place, (0.04, place, "left", "center"))
            plot.text(number + shift, at, _short(text), fontsize=8, ha=across, va=along, zorder=6,
                      bbox={"fc": "white", "ec": "none", "alpha": 0.85, "pad": 0.6})  # fmt: skip
    # From the last to the best, so that the best is on top.
    for trial in reversed(range(len(colors))):
        points = [(n, axis.places[trial]) for n, axis in enumerate(axes)]
        known = [(n, place) for n, place in points if place is not None]
        plot.plot(
            [n for n, _ in known], [place for _, place in known], color=colors[trial],
            lw=2.4 if trial == 0 else 1.2, marker="o", ms=3,
        )  # fmt: skip
    plot.set_xticks(range(len(axes)), [_short(axis.title) for axis in axes])
    plot.set_xlim(-0.35, len(axes) - 1 + 0.45)
    plot.set_ylim(-0.1, 1.1)
    plot.set_yticks([])
    for side in ("left", "bottom"):
        plot.spines[side].set_visible(False)
    plot.tick_params(axis="x", length=0)


def _draw_curves(sweep: Sweep, trials: Sequence[Trial]) -> Markup:
    curves = [_curve(sweep, trial) for trial in trials]
    return draw_svg(
        (WIDTH, 3.6),
        lambda plot: _learning(plot, sweep, curves, _colors(trials)),
        f"{sweep.goal.metric} on validation over the epochs of every trial",
    )


def _learning(
    plot: Axes, sweep: Sweep, curves: Sequence[Sequence[tuple[int, float]]], colors: Sequence[str]
) -> None:
    for number in reversed(range(len(curves))):
        curve = curves[number]
        plot.plot(
            [epoch for epoch, _ in curve], [value for _, value in curve], color=colors[number],
            lw=2.4 if number == 0 else 1.0, marker="o", ms=2.6,
        )  # fmt: skip
    if curves and curves[0]:
        epoch, value = max(curves[0], key=lambda point: sweep.goal.sign * point[1])
        plot.plot([epoch], [value], marker="*", ms=12, color=ORANGE, mec="white", zorder=5)
    plot.set_xlabel(f"epochs of stage {sweep.recipe.stages[-1].name}")
    plot.set_ylabel(f"{sweep.goal.metric} (val)")
    plot.set_xlim(left=0)
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.grid(axis="y")


def _curve(sweep: Sweep, trial: Trial) -> list[tuple[int, float]]:
    """Return epochs and numbers: steps of trials with other batches are not comparable."""
    if trial.value is None:
        return []
    run = Run.open(trial.location)
    stage, metric = run.recipe.stages[-1].name, sweep.goal.metric
    return [
        (int(row["epoch"]) + 1, float(row[metric]))
        for row in run.metrics()
        if row["stage"] == stage and row["kind"] == "validation" and row.get(metric) is not None
    ]


def _colors(trials: Sequence[Trial]) -> list[str]:
    """Return colours by value: dark is better, grey has none."""
    known = [trial.value for trial in trials if trial.value is not None]
    if not known:
        return [FAINT] * len(trials)
    best, worst = known[0], known[-1]
    colors = matplotlib.colormaps[COLORS]
    return [
        FAINT if trial.value is None
        else to_hex(colors(LIGHTEST + (1 - LIGHTEST) * _share(trial.value, worst, best)))
        for trial in trials
    ]  # fmt: skip


def _share(value: float, worst: float, best: float) -> float:
    return 1.0 if best == worst else (value - worst) / (best - worst)


def _short(label: str) -> str:
    return label if len(label) <= LABEL_LETTERS else "…" + label[1 - LABEL_LETTERS :]
