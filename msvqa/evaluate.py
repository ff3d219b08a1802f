"""Evaluate: answer every question of a split with a run's best checkpoint, and count."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from msvqa.checks.features import check_features
from msvqa.data.annotations import several
from msvqa.data.examples.questions import Questions
from msvqa.data.folds import dealt, read_split
from msvqa.data.prepared import Prepared
from msvqa.data.processors.processor import processor_of
from msvqa.data.schema import PREDICTIONS
from msvqa.data.split import Split
from msvqa.data.text import AnswerList
from msvqa.engine import cluster
from msvqa.engine.prediction import PredictionJob, check_answers, check_lexicon, predict_on_ray
from msvqa.errors import CheckpointError, DataError, RecipeError, StorageError, one_of
from msvqa.evaluators import EVALUATORS
from msvqa.evaluators.evaluator import Evaluator
from msvqa.extract import check_extraction, extract
from msvqa.files import write_json, written_aside
from msvqa.metrics import is_finite
from msvqa.objectives import OBJECTIVES
from msvqa.prepare import prepare
from msvqa.recipe import Recipe, differences, parse
from msvqa.run import Run
from msvqa.sections import flatten, resolve
from msvqa.storage import join

logger = logging.getLogger(__name__)

MADE_FROM_DATA = ("data.prepared", "clips.store", "features.store", "processor.store")
ELSEWHERE = (
    "data.root", *MADE_FROM_DATA, "data.allow_missing", "data.follow_links", "data.shared_videos",
    "data.equal_videos", "clips.cache", "clips.timeout_s", "processor.cache",
    "processor.timeout_s", "scaling.", "faults.", "evaluation.",
)  # fmt: skip
"""Fields that may be other than in training: where things are, and how the work is done."""


def evaluate(run: str | Path, split: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the metrics of a split; writes them and the predictions into the run.

    Args:
        run: location of the run.
        split: name of the split.
        overrides: `key=value` for this time alone, of the fields in `ELSEWHERE`.

    Raises:
        RunError, CheckpointError: there is no trained model.
        RecipeError: an override that is wrong, or that would change what was trained.
        DataError: no such split, or none of its videos is present.
    """
    opened = Run.open(run)
    opened.recipe = recipe = _changed(opened.recipe, overrides)
    checkpoint = opened.checkpoint()
    check_answers(recipe)
    # An hour of answers would be for nothing.
    opened.folder.create()
    prepared = prepare(recipe.data, need_videos=processor_of(recipe).reads_files)
    check_lexicon(opened.locate(checkpoint), prepared)
    questions = _questions(recipe, prepared, split)
    check_extraction(recipe)
    check_features(recipe, prepared)
    with cluster.connected() as resources:
        cluster.need_cpus(resources)
        direct = processor_of(recipe).way == "direct"
        store = None if direct else extract(recipe, checked=True)
        if store is not None:
            # Folds depend on which videos are equal, and that the store knows.
            prepared = dealt(recipe, prepared, store.copies)
            questions = _questions(recipe, prepared, split).without(store.rejected)
            if not len(questions):
                raise DataError(f"{store.location} has none of the videos of split {split!r}")
        job = PredictionJob(
            checkpoint=opened.locate(checkpoint),
            prepared=prepared.location,
            store=store.location if store else None,
            split=split,
            recipe=recipe.to_dict(),
        )
        workers = recipe.scaling.data_workers or int(resources.gpus or resources.cpus)
        predictions = predict_on_ray(
            job,
            questions,
            workers=workers,
            gpus_per_worker=cluster.gpu_share(workers, resources.gpus),
        )
    return record(opened, checkpoint, prepared, questions, predictions)


def record(
    run: Run,
    checkpoint: Path,
    prepared: Prepared,
    questions: Split,
    predictions: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Count what a checkpoint of the run predicted; write the predictions and their metrics.

    Raises:
        CheckpointError: no prediction is finite.
    """
    evaluator = _evaluator(run.recipe)
    train = read_split(prepared, "train", run.recipe.folds, present_only=False)
    metrics = {"run": run.recipe.name, "checkpoint": str(checkpoint.relative_to(run.path))}
    kinds = prepared.info["question_types"]
    metrics |= evaluator.evaluate(predictions, questions, train, kinds)
    _name_not_finite(run.locate(checkpoint), questions, is_finite(predictions))
    folder, answers = run.evaluation_dir(questions.name), prepared.lexicon.of(AnswerList)
    try:
        _write_predictions(folder / "predictions.parquet", predictions, questions, answers)
        write_json(folder / "metrics.json", metrics)
        run.folder.put(f"evaluate/{questions.name}", last="metrics.json")
    except (OSError, StorageError) as error:
        numbers = [key for key, value in metrics.items() if isinstance(value, (int, float))]
        raise StorageError(
            f"the evaluation cannot be written to {folder}: {error}\n"
            f"What it has counted: {', '.join(f'{key} {metrics[key]:.6g}' for key in numbers)}"
        ) from error
    return metrics


def _name_not_finite(checkpoint: str, questions: Split, finite: np.ndarray) -> None:
    """Say which questions have predictions that are not finite; they count as wrong."""
    bad = np.flatnonzero(~finite)
    if not len(bad):
        return
    videos = dict.fromkeys(questions.media.id[questions.examples.medium[row]] for row in bad)
    found = f"{len(bad)} of {len(questions)} questions of split {questions.name!r}"
    if len(bad) == len(questions):
        raise CheckpointError(
            f"{checkpoint}: for {found} the predictions are not finite, so there is nothing to "
            "count; evaluate another checkpoint"
        )
    logger.warning(
        "%s: for %s the predictions are not finite, and count as wrong; videos:\n%s",
        checkpoint, found, several([*videos]),
    )  # fmt: skip


def _changed(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return the recipe with overrides that leave the trained model what it is."""
    changed = parse(recipe.to_dict(), overrides)
    # Folds are dealt by what the store knows, see `dealt`.
    may = tuple(key for key in ELSEWHERE if recipe.folds is None or key != "clips.cache")
    refused = [line for line in differences(recipe, changed) if not line.startswith(may)]
    if refused:
        allowed = one_of([key.rstrip(".") for key in may])
        raise RecipeError([f"{line}: was trained so; may change: {allowed}" for line in refused])
    if changed.data.root != recipe.data.root:
        # What was made from the other data would be made anew, under a training that may read it.
        before, after = dict(flatten(recipe.to_dict())), dict(flatten(changed.to_dict()))
        kept = [key for key in MADE_FROM_DATA if before.get(key) and after[key] == before[key]]
        if kept:
            raise RecipeError(
                [f"{key}: belongs to {recipe.data.root}; name another {key}=DIR" for key in kept]
            )
    return changed


def _evaluator(recipe: Recipe) -> Evaluator:
    objective = resolve(recipe.stages[-1].objective.name, OBJECTIVES, "objective")
    kind: type[Evaluator] = resolve(objective.evaluator, EVALUATORS, "evaluator")
    return kind(recipe.evaluation)


def _questions(recipe: Recipe, prepared: Prepared, name: str) -> Split:
    split = read_split(prepared, name, recipe.folds, present_only=processor_of(recipe).reads_files)
    if not split.expected:
        counts = {name: n["questions"]["expected"] for name, n in prepared.info["splits"].items()}
        there = one_of(name for name, count in counts.items() if count)
        raise DataError(
            f"there is no split {name!r}: no question of {prepared.root} is in it; "
            f"there are questions in {there}"
        )
    if not len(split):
        raise DataError(
            f"none of the videos of split {name!r} is present under {prepared.root} "
            f"({split.expected} questions): see {join(prepared.location, 'missing.txt')}"
        )
    return split


def _write_predictions(
    path: Path, predictions: Mapping[str, np.ndarray], split: Split, answers: AnswerList
) -> None:
    """Write one row per question, with all that is needed to count again without this package."""
    finite, asked = is_finite(predictions), split.of(Questions)
    # What is not finite is no answer, and has no probability.
    top = [
        [answers.decode(answer) for answer in row] if answered else []
        for row, answered in zip(predictions["top"].tolist(), finite, strict=True)
    ]
    probability = predictions["probability"].astype(np.float32).tolist()
    columns = {
        **asked.shown(np.arange(len(asked))),
        "video_id": [split.media.id[row] for row in asked.medium],
        "predicted": [next(iter(best), None) for best in top],
        "correct": [best[:1] == [answer] for best, answer in zip(top, asked.answer, strict=True)],
        "top": top,
        "probability": [
            row if answered else [] for row, answered in zip(probability, finite, strict=True)
        ],
    }
    with written_aside(path) as aside:
        pq.write_table(pa.table(columns, schema=PREDICTIONS), aside)
