"""Curves of a stage: the rows of metrics.jsonl as panels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from msvqa.page.figures import Line, Panel

Row = Mapping[str, Any]

PLACE = ("stage", "kind", "step", "epoch", "time_s")
"""Columns that say where a row belongs."""
NOT_DRAWN = ("steps", "eta_s", "workers", "tflops", "share_of_peak", "compiling", "mse_255")
"""Columns without news: counts, and what another column says on another scale."""
LAST = ("gradient_norm", "lr", "waiting", "decoders_idle", "questions_per_s", "memory_gb")
"""Columns about the course of the training, drawn after losses and metrics."""
QUIET = ("cut", "dropped")
"""Columns that are drawn only where there is something to see: mostly they are 0 throughout."""
TITLES = {
    "lr": "Learning rate",
    "waiting": "Waiting for data",
    "decoders_idle": "Decoders idle",
    "questions_per_s": "Examples per second",
    "memory_gb": "Memory, GB",
    "mse": "Squared error",
    "r2": "R²",
}
PERCENT = ("accuracy", "waiting", "decoders_idle")
LINEAR = (*PERCENT, "lr", "questions_per_s")
DECADES = 100
"""Values that differ by more than this factor are shown on a logarithmic scale."""
FROM_ZERO = {"waiting": 0.05, "decoders_idle": 0.05, "lr": 0.0, "questions_per_s": 0.0}
"""Columns whose axis starts at 0, and the least value it goes up to: less waiting is nothing to
worry about, and must not fill the panel."""
MAX_POINTS = 400


def stage_panels(rows: Sequence[Row], monitor: str, best_step: int | None) -> list[Panel]:
    """Return the panels of a stage.

    Args:
        rows: rows of the stage.
        monitor: validation metric that chose the best checkpoint.
        best_step: step of the best checkpoint.
    """
    kinds: dict[str, list[Row]] = {"train": [], "validation": []}
    for row in rows:
        kinds.setdefault(row["kind"], []).append(row)
    train, validation = kinds["train"], kinds["validation"]
    shared = [name for name in _columns(validation) if name in _columns(train)]
    losses = [name for name in _columns(train) if name not in (*shared, *LAST)]
    metrics = [name for name in _columns(validation) if name not in shared]
    panels = [_panel(group, train) for group in _groups(losses)]
    best = [
        (float(row["step"]), float(row[monitor]))
        for row in validation
        if row["step"] == best_step and monitor in row
    ]
    for group in [[name] for name in shared] + _groups(metrics):
        panel = _validation_panel(group, validation, train if group[0] in shared else ())
        panels.append(replace(panel, best=best[0]) if best and monitor in group else panel)
    panels += [_panel([name], train) for name in LAST if name in _columns(train)]
    return [panel for panel in panels if any(line.x for line in panel.lines)]


def _has_news(name: str, rows: Sequence[Row]) -> bool:
    return name not in QUIET or any(row.get(name) for row in rows)


def thin(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return at most `MAX_POINTS` points: each the mean of equally many neighbours."""
    size = -(-len(x) // MAX_POINTS) or 1
    starts = range(0, len(x), size)
    means = [
        (sum(x[s : s + size]) / len(x[s : s + size]), sum(y[s : s + size]) / len(y[s : s + size]))
        for s in starts
    ]
    return [a for a, _ in means], [b for _, b in means]


def _columns(rows: Sequence[Row]) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row)
    drawn = [name for name in names if name not in (*PLACE, *NOT_DRAWN)]
    return [name for name in drawn if _has_news(name, rows)]


def _groups(names: Sequence[str]) -> list[list[str]]:
    """Put columns such as `r2_appearance` and `r2_motion` together; they have one scale."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_quantity(name), []).append(name)
    return list(groups.values())


def _quantity(name: str) -> str:
    """Return what is measured, without the depth or the direction that it is measured in."""
    before, recall, _ = name.partition("_recall_at_")
    if recall:
        return f"{before} recall"
    if name.endswith("_rank"):
        return f"{name.rsplit('_', 2)[0]} rank"
    return name.partition("_")[0]


def _panel(names: Sequence[str], rows: Sequence[Row]) -> Panel:
    words = [name.split("_") for name in names]
    alike = takewhile(lambda same: len(set(same)) == 1, zip(*words, strict=False))
    # As the title says; `at 1` is more of a label than `1`.
    titled = len(_quantity(names[0]).replace("_", " ").split())
    shared = min(len(list(alike)), titled) if len(names) > 1 else 0
    labels = ["_".join(of[shared:]) for of in words]
    lines = [_line(name, label, rows) for name, label in zip(names, labels, strict=True)]
    return Panel(
        title=_title(names),
        lines=lines,
        percent=names[0] in PERCENT,
        logarithmic=names[0] not in LINEAR and _spans_decades(lines),
        top=FROM_ZERO.get(names[0]),
    )


def _validation_panel(
    names: Sequence[str], validation: Sequence[Row], train: Sequence[Row]
) -> Panel:
    panel = _panel(names, validation)
    if not train:
        return replace(panel, title=f"{panel.title}, validation")
    lines = [
        _line(names[0], "training batches", train, faint=True),
        _line(names[0], "validation", validation),
    ]
    return replace(panel, lines=lines)


def _line(name: str, label: str, rows: Sequence[Row], faint: bool = False) -> Line:
    points = [
        (float(row["step"]), float(row[name]))
        for row in rows
        if isinstance(row.get(name), (int, float)) and math.isfinite(row[name])
    ]
    x, y = thin([step for step, _ in points], [value for _, value in points])
    return Line(label.replace("_", " ") or name, x, y, faint)


def _spans_decades(lines: Sequence[Line]) -> bool:
    values = [value for line in lines for value in line.y]
    return bool(values) and 0 < DECADES * min(values) < max(values)


def _title(names: Sequence[str]) -> str:
    name = _quantity(names[0]) if len(names) > 1 else names[0]
    return TITLES.get(name, name.replace("_", " ").capitalize())
