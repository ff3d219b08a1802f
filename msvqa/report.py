"""Report: one HTML file that shows what a run has learned, readable without network and program."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup

from msvqa.engine.pace import StagePace, kept_pace
from msvqa.errors import MSVQAError
from msvqa.evaluators.evaluator import Scatter, Sheet, evaluator_of_metrics, evaluator_of_stage
from msvqa.files import written_aside
from msvqa.models.model import Sizes, build_model
from msvqa.objectives import OBJECTIVES
from msvqa.objectives.objective import Objective
from msvqa.objectives.reconstruction import Reconstruction
from msvqa.page.answers import (
    Example,
    Mistake,
    choose_examples,
    common_mistakes,
    show_examples,
    type_accuracies,
)
from msvqa.page.curves import stage_panels
from msvqa.page.figures import Panel, TypeAccuracy, draw_panel, draw_scatter, draw_types
from msvqa.page.footage import Footage
from msvqa.page.masks import has_masks, show_masks
from msvqa.page.pictures import Filmstrips
from msvqa.page.reconstructions import reconstruct
from msvqa.page.scores import ShownCase, headline, show_cases
from msvqa.page.template import fill
from msvqa.recipe import StageConfig
from msvqa.run import Run, has_score
from msvqa.sections import resolve

FIRST_SPLITS = ("test", "val")
"""Splits in the order of the page; others follow by name."""
REJECTED_SHOWN = 50


@dataclass(frozen=True, kw_only=True)
class StageView:
    """One stage as the page shows it."""

    config: StageConfig
    kind: type[Objective]
    state: str
    steps: int
    total_steps: int
    time_s: float
    pace: StagePace
    memory_gb: float | None
    """Largest of the first worker's process, or of its device."""
    best: Mapping[str, Any]
    """Validation numbers of the best checkpoint."""
    best_step: int | None
    panels: Sequence[tuple[Panel, Markup]]
    monitor: str
    """Validation metric that chose the best checkpoint."""


@dataclass(frozen=True, kw_only=True)
class AnswersView:
    """One evaluated split as the page shows it."""

    split: str
    metrics: Mapping[str, Any]
    evaluated_at: datetime
    types: Sequence[TypeAccuracy]
    figure: Markup
    right: Sequence[Example]
    wrong: Sequence[Example]
    mistakes: Mapping[str, Sequence[Mistake]]
    problem: str


@dataclass(frozen=True, kw_only=True)
class ScoresView:
    """One evaluation that asked no questions, as the page shows it."""

    name: str
    metrics: Mapping[str, Any]
    evaluated_at: datetime
    headline: tuple[str, float | None]
    sheet: Sheet
    sheets: Mapping[str, Sheet]
    figures: Sequence[tuple[Scatter, Markup]]
    cases: Mapping[str, Sequence[ShownCase]]
    problem: str


@dataclass(frozen=True, kw_only=True)
class StripsView:
    """What one stage makes of a few media, or why nothing is shown."""

    stage: StageView
    media: Sequence[Filmstrips]
    problem: str


def report(run_path: str | Path) -> str:
    """Write report.html into a run and return its place; parts that are absent are named in it.

    Raises:
        RunError: the directory is not a run.
    """
    run = Run.open(run_path)
    run.folder.create()
    page = run.path / "report.html"
    text = _render(run)
    with written_aside(page) as aside:
        aside.write_text(text, encoding="utf-8")
    run.folder.put(page.name)
    return run.locate(page)


def _render(run: Run) -> str:
    footage = Footage(run.recipe.of_stage(-1))
    stages, evaluated = _stages(run), _evaluated(run, footage)
    filters: dict[str, Callable[..., Any]] = {
        "percent": _percent,
        "points": _points,
        "number": _number,
        "duration": _duration,
        "sentence": _sentence,
    }
    return fill(
        "report.html.j2",
        filters,
        recipe=run.recipe,
        recipe_yaml=run.recipe.to_yaml(),
        parameters=_count_parameters(run),
        stages=stages,
        answers=[view for view in evaluated if isinstance(view, AnswersView)],
        scores=[view for view in evaluated if isinstance(view, ScoresView)],
        reconstructions=[
            _strips(run, stage, reconstruct, footage)
            for stage in stages
            if issubclass(stage.kind, Reconstruction)
        ],
        masks=[
            _strips(run, stage, show_masks, Footage(run.recipe.of_stage(number)))
            for number, stage in enumerate(stages)
            if has_masks(stage.kind, stage.config.objective)
        ],
        footage=footage,
        data=footage.prepared.info if footage.prepared else None,
        rejected=sorted(footage.store.rejected.items()) if footage.store else None,
        rejected_shown=REJECTED_SHOWN,
        extraction=kept_pace(footage.store) if footage.store else None,
        environment=_environment(run),
        written_at=datetime.now(timezone.utc),
    )


# Training


def _stages(run: Run) -> list[StageView]:
    rows = run.metrics()
    return [
        _stage(run, number, [row for row in rows if row["stage"] == stage.name])
        for number, stage in enumerate(run.recipe.stages)
    ]


def _stage(run: Run, number: int, rows: Sequence[Mapping[str, Any]]) -> StageView:
    config = run.recipe.stages[number]
    monitor = evaluator_of_stage(run.recipe.validation(number)).monitor[0]
    kind: type[Objective] = resolve(config.objective.name, OBJECTIVES, "objective")
    best_step = _best_step(run, config.name)
    train = [row for row in rows if row["kind"] == "train"]
    validation = [row for row in rows if row["kind"] == "validation"]
    panels = stage_panels(rows, monitor, best_step)
    state = "finished" if run.is_finished(config.name) else "not finished"
    return StageView(
        config=config,
        kind=kind,
        state=state if rows else "not started",
        steps=max((row["step"] for row in rows), default=0),
        total_steps=max((row.get("steps", 0) for row in train), default=0),
        time_s=max((row["time_s"] for row in rows), default=0.0),
        pace=StagePace.of(rows),
        memory_gb=max((row["memory_gb"] for row in train if "memory_gb" in row), default=None),
        best=next((row for row in validation if row["step"] == best_step), {}),
        best_step=best_step,
        panels=[(panel, draw_panel(panel)) for panel in panels],
        monitor=monitor,
    )


def _best_step(run: Run, stage: str) -> int | None:
    """Return the step of the checkpoint that evaluation takes, unless it has no score."""
    if not run.checkpoints(stage):
        return None
    info = run.chosen(stage)[1]
    return int(info["position"]["step"]) if has_score(info) else None


def _count_parameters(run: Run) -> int | None:
    """Return the parameters of the model; its sizes are known from any checkpoint."""
    infos = [
        (stage, info) for stage in run.recipe.stages for _, info in run.checkpoints(stage.name)
    ]
    if not infos:
        return None
    stage, info = infos[-1]
    with torch.device("meta"):
        model = build_model(run.recipe, Sizes(**info["sizes"]), stage.absent)
    return int(sum(parameter.numel() for parameter in model.parameters()))


# Results


def _evaluated(run: Run, footage: Footage) -> list[AnswersView | ScoresView]:
    found = run.evaluated()
    ranked = {name: number for number, name in enumerate(FIRST_SPLITS)}
    names = sorted(found, key=lambda name: (ranked.get(name, len(ranked)), name))
    return [_evaluation(run, name, footage) for name in names]


def _evaluation(run: Run, name: str, footage: Footage) -> AnswersView | ScoresView:
    """Return the answers or scores of a split, or of one of the recipe's evaluations."""
    file = run.evaluation_dir(name) / "metrics.json"
    rows: list[dict[str, Any]] = []
    problem, metrics = "", run.metrics_of(name)
    try:
        rows = run.evaluation(name)[1].to_pylist()
    except (OSError, ValueError) as error:
        problem = f"The predictions cannot be read ({error}): run `msvqa evaluate` again."
    evaluated_at = datetime.fromtimestamp(file.stat().st_mtime, timezone.utc)
    other = _footage_of(run, metrics) if "evaluation" in metrics else footage
    if "per_type" not in metrics:
        evaluator = evaluator_of_metrics(metrics)
        return ScoresView(
            name=name,
            metrics=metrics,
            evaluated_at=evaluated_at,
            headline=headline(metrics),
            sheet=evaluator.sheet(metrics),
            sheets=evaluator.sheets(metrics),
            figures=[(figure, draw_scatter(figure)) for figure in evaluator.figures(rows)],
            cases=show_cases(metrics, rows, other),
            problem=problem,
        )
    if other is None:
        problem = problem or "The recipe does not name the data of this evaluation any more."
    types = type_accuracies(metrics)
    shown = [] if problem else rows
    return AnswersView(
        split=name,
        metrics=metrics,
        evaluated_at=evaluated_at,
        types=types,
        figure=draw_types(types),
        right=show_examples(choose_examples(shown, right=True), other or footage),
        wrong=show_examples(choose_examples(shown, right=False), other or footage),
        mistakes=common_mistakes(rows),
        problem=problem,
    )


def _footage_of(run: Run, metrics: Mapping[str, Any]) -> Footage | None:
    """Return the frames of the data of an evaluation, if the recipe still names it."""
    name = metrics["evaluation"]
    if name not in run.recipe.evaluations:
        return None
    return Footage(run.recipe.of_evaluation(name))


def _strips(
    run: Run,
    stage: StageView,
    show: Callable[[str, Footage], list[Filmstrips]],
    footage: Footage,
) -> StripsView:
    media: list[Filmstrips] = []
    problem = ""
    try:
        media = show(run.locate(run.checkpoint(stage.config.name)), footage)
    except MSVQAError as error:
        problem = str(error)
    if not media and not problem:
        gone = "No video of the validation or test split is there any more."
        problem = " ".join([gone, *footage.problems, *dict.fromkeys(footage.reasons.values())])
    return StripsView(stage=stage, media=media, problem=problem)


def _environment(run: Run) -> dict[str, Any]:
    file = run.folder.get("environment.json")
    if not file.is_file():
        return {}
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


# Numbers as text


ABSENT = "\N{EN DASH}"


def _percent(value: float | None) -> str:
    return ABSENT if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def _points(value: float | None) -> str:
    return ABSENT if value is None else f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def _number(value: str | float | None) -> str:
    """Return a cell of a sheet: numbers with four digits, texts as they are."""
    if value is None or isinstance(value, str):
        return ABSENT if value is None else value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _sentence(text: str) -> str:
    # A sentence may begin with the name of a file, which stays as it is.
    names_file = "." in text.partition(" ")[0].rstrip(".:,")
    start = text[:1] if names_file else text[:1].upper()
    return f"{start}{text[1:]}".rstrip(".") + "."
