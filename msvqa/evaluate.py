"""Evaluate: answer every question of a split with a run's best checkpoint, and count."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from msvqa.checks.features import check_features
from msvqa.data.annotations import several
from msvqa.data.examples.examples import NO_MEDIUM
from msvqa.data.folds import dealt, read_split
from msvqa.data.found_store import find_store
from msvqa.data.prepared import Prepared, prepared_location
from msvqa.data.processors.processor import processor_of, store_location
from msvqa.data.split import Split
from msvqa.engine import cluster
from msvqa.engine.checkpoint import read_lexicon, read_sound
from msvqa.engine.prediction import PoolPredictor, PredictionJob, check_answers, check_lexicon
from msvqa.engine.words import keeps_words
from msvqa.errors import CheckpointError, DataError, RecipeError, RunError, StorageError, one_of
from msvqa.evaluators.evaluator import Evaluator, Sheet, evaluator_of_metrics, evaluator_of_stage
from msvqa.extract import check_extraction, extract
from msvqa.files import write_json, written_aside
from msvqa.metrics import is_finite
from msvqa.prepare import check_places, prepare
from msvqa.recipe import Recipe, differences, parse
from msvqa.run import Run
from msvqa.sections import flatten
from msvqa.storage import join

logger = logging.getLogger(__name__)

MADE_FROM_DATA = ("data.prepared", "clips.store", "features.store", "processor.store")
ELSEWHERE = (
    "data.root", *MADE_FROM_DATA, "data.allow_missing", "data.follow_links", "data.shared_videos",
    "data.equal_videos", "clips.cache", "clips.timeout_s", "processor.cache",
    "processor.timeout_s", "scaling.", "faults.", "evaluation.", "evaluations",
)  # fmt: skip
"""Fields that may be other than in training: where things are, and how the work is done."""
OF_STAGES = re.compile(r"^stages\.\d+\.(?=(data|processor|evaluation)\.)")
"""Before the same fields of a stage that has such a section of its own."""


def evaluate(
    run: str | Path, split: str | None = None, overrides: Sequence[str] = (), on: str | None = None
) -> dict[str, Any]:
    """Return the metrics of a split; writes them and the predictions into the run.

    Args:
        run: location of the run.
        split: name of the split; None: that of the evaluation.
        overrides: `key=value` for this time alone, of the fields in `ELSEWHERE`.
        on: one of the recipe's `evaluations`; None: the data of the last stage.

    Raises:
        RunError, CheckpointError: there is no trained model.
        RecipeError: an override that is wrong, or that would change what was trained.
        DataError: no such split, or none of its videos is present.
    """
    opened = Run.open(run)
    asked = Asked.of(opened, overrides, split, on)
    recipe = asked.recipe
    checkpoint = opened.checkpoint()
    check_answers(recipe)
    with asking(asked, checkpoint) as (prepared, questions, predictor):
        evaluator = _evaluator(recipe)
        predictions = evaluator.ask(predictor, questions)
        predictions |= evaluator.ask_besides(predictor, questions)
    return record(asked, checkpoint, prepared, questions, predictions)


@contextmanager
def asking(asked: "Asked", checkpoint: Path) -> Iterator[tuple[Prepared, Split, PoolPredictor]]:
    """Give the data of what a run is asked about, what that is, and a pool that answers.

    Raises:
        CheckpointError: the checkpoint is damaged, or was trained on other words.
        DataError: no such split, or none of its videos is present.
    """
    run, recipe = asked.run, asked.recipe
    # An hour of answers would be for nothing.
    run.folder.create()
    cluster.check_named()
    prepared = _with_words(asked, asked.prepare(), run.locate(checkpoint))
    questions = _questions(recipe, prepared, asked.split)
    check_extraction(recipe)
    check_features(recipe, prepared)
    with cluster.connected() as resources:
        cluster.need_cpus(resources)
        direct = processor_of(recipe).way == "direct"
        store = None if direct else extract(recipe, checked=True, trains=asked.is_of_training)
        if store is not None:
            # Folds depend on which videos are equal, and that the store knows.
            prepared = dealt(recipe, prepared, store.copies)
            questions = _questions(recipe, prepared, asked.split).without(store.rejected)
            if not len(questions):
                raise DataError(f"{store.location} has none of the videos of {asked}")
        job = PredictionJob(
            checkpoint=run.locate(checkpoint),
            prepared=prepared.location,
            store=store.location if store else None,
            split=asked.split,
            recipe=recipe.to_dict(),
        )
        workers = recipe.scaling.data_workers or int(resources.gpus or resources.cpus)
        gpus = cluster.gpu_share(workers, resources.gpus)
        yield prepared, questions, PoolPredictor(job, questions, workers, gpus)


def rescore(
    run: str | Path, split: str | None = None, overrides: Sequence[str] = (), on: str | None = None
) -> dict[str, Any]:
    """Count the predictions of an earlier evaluation again, without the model; write the metrics.

    Args:
        run: location of the run.
        split: as in `evaluate`.
        overrides: `key=value` for this time alone, of the fields in `ELSEWHERE`.
        on: as in `evaluate`.

    Raises:
        RunError: the split has not been evaluated.
        DataError: the data has other examples than were asked about.
    """
    opened = Run.open(run)
    what = Asked.of(opened, overrides, split, on)
    recipe = what.recipe
    if what.name not in opened.evaluated():
        raise RunError(f"{run}: {what} was not evaluated; msvqa evaluate {run} comes first")
    metrics, table = opened.evaluation(what.name)
    if metrics["split"] != what.split:
        raise RunError(f"{run}: {what} was not evaluated, but split {metrics['split']!r} of it was")
    prepared = what.prepare()
    if what.keeps_words:
        checkpoint = opened.locate(opened.path / metrics["checkpoint"])
        prepared = prepared.reading(read_lexicon(checkpoint))
    store = find_store(store_location(recipe), processor_of(recipe).spec())
    prepared = dealt(recipe, prepared, store.copies if store else [])
    asked = _questions(recipe, prepared, what.split).without(store.rejected if store else ())
    if len(asked) != len(table):
        raise DataError(
            f"{run}: {len(table)} predictions for {len(asked)} {asked.examples.name} of {what}: "
            "the data has changed since; evaluate again"
        )
    evaluator = _evaluator(recipe)
    for name, values in evaluator.asked(asked).items():
        if table[name].to_pylist() != values:
            raise DataError(
                f"{run}: the predictions are about other {asked.examples.name} than those of "
                f"{what} are now: the data has changed since; evaluate again"
            )
    answers = evaluator.answers(table, asked, prepared.lexicon)
    return record(what, opened.path / metrics["checkpoint"], prepared, asked, answers)


@dataclass(frozen=True)
class Asked:
    """A run, and what it is asked about."""

    run: Run
    recipe: Recipe
    """That of the last stage, or of the evaluation; it names the data."""
    split: str
    name: str
    """Of the folder below `evaluate/`: the split, or the evaluation."""
    is_of_training: bool = True
    """Whether the data is what the last stage was trained on."""
    keeps_words: bool = False
    """Whether texts are read with the words that the model was trained in, whatever the data's."""

    def __str__(self) -> str:
        where = "" if self.name == self.split else f"evaluation {self.name!r}, "
        return f"{where}split {self.split!r}"

    @classmethod
    def of(cls, run: Run, overrides: Sequence[str], split: str | None, on: str | None) -> "Asked":
        """Return what the words of the command line mean.

        Raises:
            RecipeError: an override that is wrong or would change what was trained; no such
                evaluation.
        """
        changed = _changed(run.recipe, overrides)
        in_others = keeps_words(changed, len(changed.stages) - 1)
        if on is not None:
            view, other = changed.of_evaluation(on), changed.evaluations[on]
            own_data = other.data is not None
            return cls(run, view, split or other.split, on, not own_data, own_data or in_others)
        if split is None:
            raise RecipeError(
                ["name a split, `--split test`, or an evaluation of the recipe, `--on NAME`"]
            )
        return cls(run, changed.of_stage(-1), split, split, keeps_words=in_others)

    def prepare(self) -> Prepared:
        """Return the prepared data, made where it is not there yet."""
        check_places(self.recipe)
        need_videos = processor_of(self.recipe).reads_files
        return prepare(self.recipe.data, need_videos=need_videos, trains=self.is_of_training)


def record(
    asked: Asked,
    checkpoint: Path,
    prepared: Prepared,
    questions: Split,
    predictions: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Count what a checkpoint of the run predicted; write the predictions and their metrics.

    Raises:
        CheckpointError: no prediction is finite.
    """
    run, recipe, evaluator = asked.run, asked.recipe, _evaluator(asked.recipe)
    train = _trained_on(asked, prepared) or questions.taking(np.arange(0))
    metrics = {
        "run": recipe.name,
        "checkpoint": str(checkpoint.relative_to(run.path)),
        "evaluator": evaluator.name,
    }
    kinds = prepared.info.get("question_types", ())
    if asked.name != asked.split:
        metrics["evaluation"] = asked.name
    metrics |= evaluator.evaluate(predictions, questions, train, kinds)
    _name_not_finite(run.locate(checkpoint), questions, is_finite(predictions))
    folder = run.evaluation_dir(asked.name)
    table = evaluator.table(predictions, questions, prepared.lexicon)
    try:
        with written_aside(folder / "predictions.parquet") as aside:
            pq.write_table(table, aside)
        write_json(folder / "metrics.json", metrics)
        run.folder.put(f"evaluate/{asked.name}", last="metrics.json")
    except (OSError, StorageError) as error:
        numbers = [key for key, value in metrics.items() if isinstance(value, (int, float))]
        raise StorageError(
            f"the evaluation cannot be written to {folder}: {error}\n"
            f"What it has counted: {', '.join(f'{key} {metrics[key]:.6g}' for key in numbers)}"
        ) from error
    return metrics


def _trained_on(asked: Asked, prepared: Prepared) -> Split | None:
    """Return the training split of the last stage, whatever it is evaluated on, if it is there."""
    view, found = asked.recipe, prepared
    if not asked.is_of_training:
        view = asked.run.recipe.of_stage(-1)
        try:
            found = Prepared.open(prepared_location(view.data))
        except DataError:
            return None
        if found.kind is not prepared.kind:
            return None
        found = found.reading(prepared.lexicon) if asked.keeps_words else found
    if "train" not in found.splits:
        return None
    return read_split(found, "train", view.folds, present_only=False)


def sheet_of(metrics: Mapping[str, Any]) -> Sheet:
    """Return the numbers of an evaluation as a table."""
    return evaluator_of_metrics(metrics).sheet(metrics)


def _with_words(asked: Asked, prepared: Prepared, checkpoint: str) -> Prepared:
    """Return the data as the model of a checkpoint reads it.

    Raises:
        CheckpointError: the checkpoint is damaged, or was trained on other words.
    """
    if asked.keeps_words:
        read_sound(checkpoint)
        return prepared.reading(read_lexicon(checkpoint))
    check_lexicon(checkpoint, prepared)
    return prepared


def _name_not_finite(checkpoint: str, questions: Split, finite: np.ndarray) -> None:
    """Say which questions have predictions that are not finite; they count as wrong."""
    bad = np.flatnonzero(~finite)
    if not len(bad):
        return
    rows = [row for row in questions.examples.media[bad].flat if row != NO_MEDIUM]
    videos = dict.fromkeys(questions.media.id[row] for row in rows)
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
    refused = [
        line for line in differences(recipe, changed) if not OF_STAGES.sub("", line).startswith(may)
    ]
    if refused:
        allowed = one_of([key.rstrip(".") for key in may])
        raise RecipeError([f"{line}: was trained so; may change: {allowed}" for line in refused])
    old, new = recipe.of_stage(-1), changed.of_stage(-1)
    if new.data.root != old.data.root:
        # What was made from the other data would be made anew, under a training that may read it.
        before, after = dict(flatten(old.to_dict())), dict(flatten(new.to_dict()))
        kept = [key for key in MADE_FROM_DATA if before.get(key) and after[key] == before[key]]
        if kept:
            raise RecipeError(
                [f"{key}: belongs to {old.data.root}; name another {key}=DIR" for key in kept]
            )
    return changed


def _evaluator(recipe: Recipe) -> Evaluator:
    return evaluator_of_stage(recipe)(recipe.evaluation)


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
