"""Merge: one embedding of each video from the runs of several folds and models."""

import json
import logging
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from msvqa.data.examples.pairs import Pairs
from msvqa.data.folds import read_split
from msvqa.data.processors.processor import processor_of
from msvqa.engine import cluster
from msvqa.ensemble import concatenated, mean_of_folds, reduced, weighted_sum
from msvqa.errors import DataError, RunError, StorageError
from msvqa.evaluate import Asked, asking
from msvqa.evaluators.similarity import Similarity
from msvqa.files import write_json, written_aside
from msvqa.objectives import OBJECTIVES
from msvqa.recipe import differences
from msvqa.run import Run
from msvqa.sections import resolve

logger = logging.getLogger(__name__)

# Legend: N videos, E width of an embedding, M models.

WIDTH = 256
"""Most numbers of a video: what the contest of the QQ Browser takes."""
FOLD = (
    "name:", "seed:", "runs:", "folds.index:", "scaling.", "faults.", "evaluation",
    "data.prepared:", "processor.store:", "features.store:", "clips.store:",
)  # fmt: skip
"""Beginnings of lines of `differences` between runs that are folds of one model."""
KEPT, RESULT = "embeddings.parquet", "result.json"
NAMES_SHOWN = 5
BEGINNING = (1980, 1, 1, 0, 0, 0)
"""Time of the archive's member: equal embeddings make equal files."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is merged, and how."""

    on: str | None = None
    """One of the recipes' evaluations; None: the data of the last stage."""
    split: str | None = None
    weights: Sequence[float] | None = None
    """Of the models, in the order in which the first run of each is named; None: all alike."""
    how: Literal["sum", "concatenate"] = "sum"
    """The reference's weighted sum, or unit vectors beside each other, see `ensemble`."""


@dataclass(frozen=True)
class Embedded:
    """Embeddings of videos."""

    ids: Sequence[str]
    vectors: np.ndarray
    """float16 (N, E)"""


@dataclass(frozen=True)
class Merged:
    """What was merged, and where it is."""

    folder: Path
    models: Sequence[Sequence[str]]
    """Locations of the runs of each model."""
    weights: Sequence[float]
    shape: tuple[int, int]
    """N and the width of the merged embeddings"""
    metrics: Mapping[str, Any] | None = None
    """How the cosines agree with people, where the split has pairs; `runs`: those of each run."""


def merge(runs: Sequence[str | Path], out: str | Path, wanted: Wanted) -> Merged:
    """Write `result.zip` and `embeddings.parquet` of the merged embeddings of all runs.

    Where the split has pairs that people have compared, also `metrics.json`.

    Each run keeps its own embeddings, so that what was interrupted goes on with the next run.

    Raises:
        RunError: the runs do not go together; names those whose videos differ.
        DataError: an embedding is not finite.
        StorageError: the results cannot be written.
    """
    opened = [Run.open(run) for run in runs]
    models = models_of(opened)
    weights = _weights(wanted, len(models))
    with _answering(opened, wanted):
        found = [[(run, embedded(run, wanted)) for run in model] for model in models]
    first, ids = models[0][0], found[0][0][1].ids
    for run, own in (pair for model in found for pair in model):
        _refuse_other_videos((first, ids), (run, own.ids))
    vectors = joined([[own.vectors for _, own in model] for model in found], weights, wanted.how)
    folder = Path(out)
    single = {run.location: own.vectors for model in found for run, own in model}
    score = scores(Asked.of(first, (), wanted.split, wanted.on), ids, vectors, single)
    try:
        write_result(folder, ids, vectors)
        if score is not None:
            write_json(folder / "metrics.json", score)
    except OSError as error:
        raise StorageError(f"the results cannot be written to {folder}: {error}") from error
    places = [[run.location for run in model] for model in models]
    return Merged(folder, places, weights, (len(vectors), vectors.shape[1]), score)


def scores(
    asked: Asked, ids: Sequence[str], vectors: np.ndarray, single: Mapping[str, np.ndarray]
) -> dict[str, Any] | None:
    """Return the metrics of merged embeddings (N, E), with the Spearman of each run's own.

    None where the split has no pairs that people have compared.
    """
    prepared = asked.prepare()
    if prepared.kind is not Pairs:
        return None
    split = read_split(prepared, asked.split, asked.recipe.folds)
    split = split.without({*split.media.id} - {*ids})
    row_of = {video: row for row, video in enumerate(ids)}
    rows = [row_of[video] for video in split.media.id]
    count = Similarity(asked.recipe.evaluation)

    def numbers(embeddings: np.ndarray) -> dict[str, Any]:
        answers = count.answers_of(embeddings[rows].astype(np.float64), split)
        return count.evaluate(answers, split, split.taking(np.arange(0)))

    if not np.isfinite(split.of(Pairs).similarity).any():
        return None
    return {
        **numbers(vectors),
        "runs": {run: numbers(own)["spearman"] for run, own in single.items()},
    }


def models_of(runs: Sequence[Run]) -> list[list[Run]]:
    """Return the runs of each model: recipes that differ in folds, seeds and places alone.

    Raises:
        RunError: a run is named twice.
    """
    models: list[list[Run]] = []
    for run in runs:
        if any(run.location == other.location for model in models for other in model):
            raise RunError(f"{run.location} is named twice")
        of_model = next((model for model in models if _are_folds(model[0], run)), None)
        if of_model is None:
            models.append([run])
        else:
            of_model.append(run)
    return models


def embedded(run: Run, wanted: Wanted) -> Embedded:
    """Return the embeddings of a run: what an earlier merge has kept, or what its model says.

    Raises:
        RunError: its last stage does not embed, or is not finished.
        DataError: an embedding is not finite.
    """
    asked = Asked.of(run, (), wanted.split, wanted.on)
    _check(run)
    if (kept := _kept_of(run, asked)) is not None:
        return kept
    logger.info("%s: embeds the videos of %s", run.location, asked)
    with asking(asked, run.checkpoint()) as (_, split, predictor):
        vectors = predictor("embed")["embedding"].astype(np.float16)
        ids = list(split.media.id)
    bad = [ids[row] for row in np.flatnonzero(~np.isfinite(vectors).all(axis=1))]
    if bad:
        raise DataError(
            f"{run.location}: {len(bad)} embeddings are not finite in half precision, of "
            f"{_several(bad)}: leave this run out"
        )
    table = embedding_table(ids, vectors).replace_schema_metadata(_made_of(run, asked))
    with written_aside(run.evaluation_dir(asked.name) / KEPT) as aside:
        pq.write_table(table, aside)
    run.folder.put(f"evaluate/{asked.name}", last=KEPT)
    return Embedded(ids, vectors)


@contextmanager
def _answering(runs: Sequence[Run], wanted: Wanted) -> Iterator[None]:
    """Keep one cluster for all runs, where one of them has yet to embed.

    Raises:
        RunError: a run cannot be merged.
    """
    for run in runs:
        _check(run)
    asked = [(run, Asked.of(run, (), wanted.split, wanted.on)) for run in runs]
    if all(_kept_of(*one) is not None for one in asked):
        yield
        return
    with cluster.connected():
        yield


def _check(run: Run) -> None:
    """Refuse a run that cannot be merged, before any other is embedded for nothing.

    Raises:
        RunError: its last stage does not embed, or is not finished.
    """
    stage = run.recipe.stages[-1]
    if not hasattr(resolve(stage.objective.name, OBJECTIVES, "objective"), "embed"):
        raise RunError(
            f"{run.location}: its last stage, {stage.name!r}, does not embed videos: only runs of "
            "similarity can be merged"
        )
    if not run.is_finished(stage.name):
        raise RunError(
            f"{run.location}: stage {stage.name!r} is not finished: train it to its end, or leave "
            "this run out"
        )


def _made_of(run: Run, asked: Asked) -> dict[str, str]:
    """Return what embeddings depend on."""
    return {
        "checkpoint": str(run.checkpoint().relative_to(run.path)),
        "split": asked.split,
        "data": json.dumps(asked.prepare().info["identity"], sort_keys=True),
        "processor": processor_of(asked.recipe).config.model_dump_json(),
    }


def joined(
    models: Sequence[Sequence[np.ndarray]],
    weights: Sequence[float],
    how: Literal["sum", "concatenate"] = "sum",
) -> np.ndarray:
    """Return the merged embeddings (N, at most 256) of the folds (N, E) of each model.

    Raises:
        RunError: embeddings of different widths are to be added.
    """
    means = [mean_of_folds(folds) for folds in models]
    if how == "concatenate":
        return reduced(concatenated(means, np.asarray(weights)), WIDTH)
    widths = sorted({mean.shape[1] for mean in means})
    if len(widths) > 1 or widths[0] > WIDTH:
        raise RunError(
            f"embeddings of {' and '.join(map(str, widths))} numbers cannot be added to ones of "
            f"at most {WIDTH}: use --how concatenate"
        )
    return weighted_sum(means, np.asarray(weights))


def write_result(folder: Path, ids: Sequence[str], vectors: np.ndarray) -> None:
    """Write embeddings (N, E) as the contest takes them, `result.zip`, and as a table."""
    folder.mkdir(parents=True, exist_ok=True)
    precise = vectors.astype(np.float32)
    with written_aside(folder / KEPT) as aside:
        pq.write_table(embedding_table(ids, precise), aside)
    # The shortest numbers that single precision reads back.
    rows = precise.astype(str).astype(np.float64).tolist()
    content = json.dumps(dict(zip(ids, rows, strict=True)), allow_nan=False)
    member = zipfile.ZipInfo(RESULT, date_time=BEGINNING)
    member.compress_type = zipfile.ZIP_DEFLATED
    with written_aside(folder / "result.zip") as aside, zipfile.ZipFile(aside, "w") as archive:
        archive.writestr(member, content)


def _weights(wanted: Wanted, models: int) -> list[float]:
    if wanted.weights is None:
        return [1 / models] * models
    if len(wanted.weights) != models:
        raise RunError(f"{len(wanted.weights)} weights for {models} models: give one for each")
    if min(wanted.weights) < 0 or not 0 < sum(wanted.weights) < np.inf:
        raise RunError("weights must not be negative, and not all 0")
    return list(wanted.weights)


def _are_folds(first: Run, second: Run) -> bool:
    lines = (_of_any_stage(line) for line in differences(first.recipe, second.recipe))
    return all(line.startswith(FOLD) for line in lines)


def _of_any_stage(line: str) -> str:
    """Return a line of `differences` without the stage that its field is of."""
    head, dot, rest = line.partition(".")
    if head != "stages" or not dot:
        return line
    field = rest.partition(".")[2]
    return field if field.startswith(("folds.", "data.prepared:", "processor.store:")) else line


def _refuse_other_videos(
    first: tuple[Run, Sequence[str]], second: tuple[Run, Sequence[str]]
) -> None:
    (run, ids), (other, others) = first, second
    if list(ids) == list(others):
        return
    told = []
    for where, missing in ((other, set(ids) - set(others)), (run, set(others) - set(ids))):
        if missing:
            told.append(f"{where.location} lacks {len(missing)}: {_several(sorted(missing))}")
    raise RunError(
        f"{run.location} and {other.location} have embedded different videos"
        + (f"; {'; '.join(told)}" if told else ", in another order")
    )


def _several(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - NAMES_SHOWN} more" if len(ids) > NAMES_SHOWN else ""
    return ", ".join(ids[:NAMES_SHOWN]) + more


def embedding_table(ids: Sequence[str], vectors: np.ndarray) -> pa.Table:
    """Return a table of embeddings (N, E), with the columns `id` and `embedding`."""
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    return pa.table({"id": pa.array(ids, pa.string()), "embedding": column})


def _kept_of(run: Run, asked: Asked) -> Embedded | None:
    """Return what a run has kept of the same checkpoint and data."""
    file = run.folder.get(f"evaluate/{asked.name}/{KEPT}")
    if not file.is_file():
        return None
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowInvalid) as error:
        logger.warning("%s cannot be read (%s): it is made again", file, error)
        return None
    known = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if any(known.get(key) != value for key, value in _made_of(run, asked).items()):
        return None
    column = table["embedding"].combine_chunks()
    vectors = column.flatten().to_numpy().reshape(len(table), -1)
    return Embedded(table["id"].to_pylist(), vectors)
