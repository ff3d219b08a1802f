"""Tables of results, as the command line prints them."""

import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from msvqa.checks.report import Report
    from msvqa.data.store import Store
    from msvqa.evaluators.evaluator import Sheet
    from msvqa.merge import Merged
    from msvqa.predict import Answer
    from msvqa.tune import Result

COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}
NAMES_SHOWN = 8


def print_table(table: "Table", title: str = "") -> None:
    """Print a table below its title."""
    from rich.console import Console

    if title:
        print(title)
    # Piped output has no width of its own; 80 columns would cut names. Names are shown as they are:
    # what is in brackets or between colons in them is no markup.
    width = None if sys.stdout.isatty() else 120
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)


def table_of(*columns: str) -> "Table":
    """Return an empty table: the first column is text, the others are numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left")
    return table


def print_report(report: "Report") -> None:
    """Print what `doctor` has found."""
    from rich.text import Text

    table = table_of("check", "", "found")
    table.columns[2].justify = "left"
    for check in report.checks:
        advice = f"\n→ {check.advice}" if check.advice else ""
        table.add_row(
            check.name, Text(check.status, COLORS[check.status]), f"{check.detail}{advice}"
        )
    print_table(table)
    for kind, names in report.problems_by_kind().items():
        more = f", … {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        print(f"  {kind} ({len(names)}): {', '.join(names[:NAMES_SHOWN])}{more}")


def print_search(result: "Result") -> None:
    """Print the trials of a search and the best of them."""
    sweep, best = result.sweep, result.best
    done = sum(trial.state == "finished" for trial in result.trials)
    title = f"{sweep.location}: {done} of {len(result.trials)} trials finished"
    names = [".".join(key.split(".")[-2:]) for key in sweep.space.fields]
    table = table_of("trial", *names, sweep.goal.metric, "epochs", "steps", "time", "state")
    for trial in result.trials:
        values = [
            f"{trial.values[key]:g}"
            if isinstance(trial.values[key], float)
            else str(trial.values[key])
            for key in sweep.space.fields
        ]
        value = "" if trial.value is None else f"{trial.value:.4f}"
        table.add_row(
            trial.name, *values, value, str(trial.epochs), str(trial.step),
            str(timedelta(seconds=int(trial.time_s))), trial.state,
        )  # fmt: skip
    print_table(table, title)
    for trial in result.trials:
        if trial.message:
            print(f"{trial.name} {trial.state}: {trial.message}")
    if best is not None:
        folds = len(best.trials)
        spread = "" if best.spread is None else f" ± {best.spread:.4f} over {folds} folds"
        print(f"Best {sweep.goal.metric} on val: {best.value:.4f}{spread} ({best.trials[0].name})")
        print(f"Train it: msvqa train {sweep.location}/best.yaml")
    print(f"Page: {result.page}")


def print_sheet(sheet: "Sheet", title: str) -> None:
    """Print a table of what an evaluation has counted."""
    table = table_of(*sheet.columns)
    for label, *cells in sheet.rows:
        table.add_row(str(label), *(_cell(cell) for cell in cells))
    print_table(table, title)


def _cell(value: str | float | None) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "" if value is None else str(value)


def print_accuracy(metrics: Mapping[str, Any], title: str) -> None:
    """Print what an evaluation has counted, for each type of question."""
    columns = ("n", "accuracy", "95 % interval", "type only", "question only", "best possible")
    table = table_of("question type", *columns)
    for name, row in metrics["per_type"].items():
        table.add_row(name, *_accuracy_cells(row))
    table.add_section()
    table.add_row("all", *_accuracy_cells(metrics), style="bold")
    print_table(table, title)
    if bad := metrics.get("n_not_finite"):
        print(f"{bad} of {metrics['n']} questions have no finite prediction and count as wrong")
    known = {name.replace("_", " "): value for name, value in metrics["baselines"].items()}
    baselines = [f"{name} {value:.4f}" for name, value in known.items() if value is not None]
    print(f"For comparison: {', '.join(baselines)}")


def _accuracy_cells(row: Mapping[str, Any]) -> list[str]:
    """Return the numbers of a row; a type without questions has a count and no accuracy."""
    names = ("accuracy", "type_only_accuracy", "question_only_accuracy", "best_possible")
    accuracy, *others = ["" if row[name] is None else f"{row[name]:.4f}" for name in names]
    low, high = row["accuracy_interval"]
    interval = "" if low is None else f"{low:.3f} to {high:.3f}"
    return [str(row["n"]), accuracy, interval, *others]


def print_merged(merged: "Merged") -> None:
    """Print what each model has given to the merged embeddings."""
    score = merged.metrics or {}
    table = table_of("first run of the model", "runs", "weight", *["spearman of one"] * bool(score))
    for places, weight in zip(merged.models, merged.weights, strict=True):
        row = [places[0], str(len(places)), f"{weight:g}"]
        if score:
            row.append(_range([score["runs"][place] for place in places]))
        table.add_row(*row)
    count, width = merged.shape
    print_table(table, f"{merged.folder}: {count} videos, {width} numbers each")
    if score.get("spearman") is not None:
        low, high = score["spearman_interval"]
        print(f"merged: spearman {score['spearman']:.4f} ({low:.3f} to {high:.3f}), n {score['n']}")


def _range(values: Sequence[float | None]) -> str:
    """Return the least, the mean and the largest of some numbers."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    return f"{min(known):.4f} to {max(known):.4f}, mean {sum(known) / len(known):.4f}"


def print_answers(answers: Sequence["Answer"], title: str) -> None:
    """Print answers to one question, the most probable first."""
    table = table_of("answer", "p")
    for answer in answers:
        table.add_row(answer.text, f"{answer.probability:.4f}")
    print_table(table, title)


def print_store(store: "Store") -> None:
    """Print how many videos are in a store, and some that are not."""
    print(f"{store.location}: {len(store.video_ids)} videos, {len(store.rejected)} rejected")
    for video_id, (outcome, message) in list(store.rejected.items())[:NAMES_SHOWN]:
        print(f"  {video_id}: {outcome}: {message}")
