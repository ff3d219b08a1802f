"""`msvqa prepare`: annotations become tables of media and examples, and word lists."""

import hashlib
import json
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from msvqa.data.annotated import Annotated
from msvqa.data.annotations import several
from msvqa.data.dataset import Dataset, open_dataset
from msvqa.data.leakage import how_to_allow
from msvqa.data.lexicon import Lexicon, file_of
from msvqa.data.prepared import (
    INFO,
    MEDIA,
    MEDIA_COLUMNS,
    PREPARED_FORMAT,
    TABLE,
    WORD_VECTORS,
    Prepared,
    prepared_location,
    write_table,
)
from msvqa.data.processors.processor import processor_of, store_location
from msvqa.data.schema import PROBLEM_KINDS, REFUSED_KINDS, Problem
from msvqa.data.text import Vocabulary
from msvqa.data.word_vectors import check_word_vectors, read_word_vectors
from msvqa.errors import DataError, RecipeError, one_of
from msvqa.files import turn
from msvqa.job import refuse_lost
from msvqa.recipe import DataConfig, Recipe
from msvqa.storage import Folder, is_remote, join, open_folder

logger = logging.getLogger(__name__)

MISSING = "missing.txt"
NOT_IN_IT = {
    "root", "prepared", "allow_missing", "equal_videos", "shared_videos", "follow_links",
}  # fmt: skip
"""Fields of the data section that leave the content of the folder as it is."""
ABSENT = ("missing_video", "unknown_video")
"""Problems of media that are not there."""
OF_FORMAT_1 = ("manifest.parquet",)
"""What earlier versions wrote in place of the tables."""


def prepare(config: DataConfig, *, need_videos: bool = True, trains: bool = True) -> Prepared:
    """Return the prepared folder of a data set; build it if it is absent or anything has changed.

    Changes are seen in the annotation files, the settings, the word vectors and in which videos are
    there. Clip stores inside the folder stay.

    Args:
        config: the data set.
        need_videos: false where features come from files, so that missing videos are no problem.
        trains: false where a model is only evaluated on it, so that nothing to train on is no
            problem.

    Raises:
        DataError: annotations or word vectors cannot be used, or videos are missing and that is
            not allowed.
        StorageError: an object store that cannot be read or written.
        ClusterError: the folders do not outlive this job.
    """
    location = prepared_location(config)
    refuse_lost({"data.root": config.root, "data.prepared": location})
    if config.word_vectors:
        check_word_vectors(config.word_vectors, config.word_size)
    dataset = open_dataset(config)
    annotated = dataset.annotate()
    _refuse(dataset, annotated, trains)
    storage = open_folder(location)
    if need_videos:
        _check_missing(config, storage, annotated)
    identity = _identity(dataset, annotated)
    if not _is_current(location, identity):
        with _locked(storage.path):
            # Another process may have built it while this one waited.
            if not _is_current(location, identity):
                files = _files(annotated)
                _forget(storage, files)
                _build(storage.path, dataset, annotated, identity)
                storage.put(*files)
                storage.put(INFO)
    return Prepared.open(location)


def prepare_stages(recipe: Recipe) -> list[Prepared]:
    """Return the prepared folder of every stage of a recipe; each data set is prepared once.

    Raises:
        DataError, StorageError, ClusterError: as `prepare`.
    """
    return _prepare_views(recipe.views(), trains=True)


def prepare_validations(recipe: Recipe) -> list[Prepared]:
    """Return the prepared folder of every one of `Recipe.validations`.

    Raises:
        RecipeError: the data has no such split.
        DataError, StorageError, ClusterError: as `prepare`.
    """
    views = recipe.validations()
    found = _prepare_views(views, trains=False)
    for view, prepared in zip(views, found, strict=True):
        if view.validated_split not in prepared.splits:
            raise RecipeError(
                [
                    f"evaluations.{view.stages[0].validate.on}.split: {prepared.root} has no split "
                    f"{view.validated_split!r}, but {one_of(prepared.splits)}"
                ]
            )
    return found


def _prepare_views(views: Sequence[Recipe], *, trains: bool) -> list[Prepared]:
    done: dict[str, Prepared] = {}
    found = []
    for view in views:
        need_videos = processor_of(view).reads_files
        key = f"{view.data!r} {need_videos}"
        if key not in done:
            done[key] = prepare(view.data, need_videos=need_videos, trains=trains)
        found.append(done[key])
    return found


def check_places(recipe: Recipe) -> None:
    """Refuse data sections of other content that would share a prepared folder, or a store.

    Raises:
        RecipeError: says which.
    """
    evaluated = [recipe.of_evaluation(name) for name in recipe.evaluations]
    sections: dict[str, DataConfig] = {}
    for view in [*recipe.views(), *evaluated]:
        processor = processor_of(view)
        places = {prepared_location(view.data): ("data", "prepared")}
        if processor.way == "store":
            places[store_location(view)] = (processor.section, "store")
        for place, (section, key) in places.items():
            first = sections.setdefault(place, view.data)
            if _content(first) != _content(view.data):
                raise RecipeError(
                    [
                        f"{section}.{key}: what is made of two data sets, of {first.root} and of "
                        f"{view.data.root}, would both be in {place}: give one of them a folder "
                        f"of its own, `{key}: DIR`"
                    ]
                )


def _content(data: DataConfig) -> dict[str, Any]:
    """Return the fields of a data section that say what is in the data set."""
    return data.model_dump(exclude=NOT_IN_IT - {"root"})


def _files(annotated: Annotated) -> list[str]:
    """Return the names of all files but prepare.json."""
    lists = [file_of(words.name) for words in annotated.kind.lists]
    return [MEDIA, TABLE, *lists, WORD_VECTORS, MISSING]


def _forget(storage: Folder, files: Sequence[str]) -> None:
    """Remove what an earlier preparation has left in an object store; on a disk it is replaced."""
    if is_remote(storage.location):
        for name in (INFO, *files, *OF_FORMAT_1):
            storage.remove(name)


def summary(prepared: Prepared) -> list[str]:
    """Return lines that say what is there: counts of every split, sizes, and what to know."""
    lines, examples = [], prepared.kind.name
    for name, counts in prepared.info["splits"].items():
        of, media = counts[examples], counts["videos"]
        lines.append(
            f"{name}: {of['present']} of {of['expected']} {examples}, "
            f"{media['present']} of {media['expected']} videos, {media['missing']} missing"
        )
    there = [words for words in prepared.kind.lists if words.name in prepared.info]
    lists = ", ".join(f"{prepared.info[words.name]} {words.noun}" for words in there)
    lines.append("; ".join(filter(None, [lists, prepared.info["word_vectors"]["said"]])))
    if any(counts["videos"]["missing"] for counts in prepared.info["splits"].values()):
        lines.append(f"missing videos are listed in {join(prepared.location, MISSING)}")
    return [*lines, *prepared.info["notes"]]


def _refuse(dataset: Dataset, annotated: Annotated, trains: bool) -> None:
    refused = [problem for problem in annotated.problems if problem.kind in REFUSED_KINDS]
    if refused:
        n = len(refused)
        count = f"{n} problem{'s' if n > 1 else ''} that must be put right"
        raise DataError(f"{dataset.root}: {count}\n{several(refused)}{how_to_allow(refused)}")
    wanted = trains and dataset.is_for_training
    if wanted and not annotated.rows_of(annotated.examples, "train")[1]:
        name = annotated.kind.name
        raise DataError(f"{dataset.root}: no training {name}, and so nothing to learn from")


def _check_missing(config: DataConfig, folder: Folder, annotated: Annotated) -> None:
    media = annotated.media
    missing = media.filter(pc.invert(media["present"])).to_pylist()
    if not missing or config.allow_missing:
        return
    with _locked(folder.path):
        _write_missing(folder.path / MISSING, annotated)
        folder.put(MISSING)
    present = annotated.presence()
    told = {(p.split, p.video_id): p.detail for p in annotated.problems if p.kind in ABSENT}
    lines = [
        told.get((row["split"], row["id"]), f"{row['split']} {row['id']}: {row['absence']}")
        for row in missing
    ]
    raise DataError(
        f"{config.root}: {len(missing)} of {len(media)} videos are missing "
        f"({(~present).sum()} of {len(present)} {annotated.kind.name})\n{several(lines)}\n"
        f"{annotated.endings_tried}"
        f"all are listed in {join(folder.location, MISSING)}; "
        "to go on without them: --allow-missing, or data.allow_missing=true"
    )


def _write_missing(path: Path, annotated: Annotated) -> None:
    rows = annotated.media.filter(pc.invert(annotated.media["present"])).to_pylist()
    lines = [f"{row['split']}\t{row['id']}\t{row['expected']}\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time prepare a folder; others wait and then find it complete."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with turn(folder / ".lock", f"prepares {folder}"):
            yield
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error}") from None


def _identity(dataset: Dataset, annotated: Annotated) -> dict[str, Any]:
    """Return everything that the content of the folder depends on."""
    vectors = dataset.config.word_vectors
    stat = Path(vectors).stat() if vectors and Path(vectors).is_file() else None
    columns = [annotated.media[name].to_pylist() for name in ("split", "id", "path")]
    present = "".join(
        f"{split}\t{name}\t{path}\n" for split, name, path in zip(*columns, strict=True)
    )
    return {
        "format": PREPARED_FORMAT,
        "root": str(dataset.root),
        "settings": dataset.config.model_dump(mode="json", exclude=NOT_IN_IT | dataset.unused),
        "sources": dataset.fingerprint(),
        # Word vectors have gigabytes: size and time stand for their content.
        "word_vectors_file": [stat.st_size, stat.st_mtime_ns] if stat else None,
        "present": hashlib.sha256(present.encode()).hexdigest(),
    }


def _is_current(location: str, identity: dict[str, Any]) -> bool:
    try:
        prepared = Prepared.open(location)
    except DataError:
        return False
    sizes = prepared.info.get("files", {})
    found = {file.name: file.stat().st_size for file in map(prepared.path.joinpath, sizes)
             if file.is_file()}  # fmt: skip
    return prepared.info.get("identity") == identity and sizes == found


def _build(folder: Path, dataset: Dataset, annotated: Annotated, identity: dict[str, Any]) -> None:
    for stopped in folder.glob(".building-*"):
        shutil.rmtree(stopped, ignore_errors=True)
    aside, files = Path(tempfile.mkdtemp(prefix=".building-", dir=folder)), _files(annotated)
    try:
        info = _write(aside, dataset, annotated)
        notes = [*annotated.notes, *_oddities(annotated.problems), *info["cautions"]]
        sizes = {n: (aside / n).stat().st_size for n in files if (aside / n).is_file()}
        info |= {"notes": notes, "identity": identity, "files": sizes}
        (aside / INFO).write_text(json.dumps(info, indent=1, ensure_ascii=False), encoding="utf-8")
        # Without prepare.json the folder counts as incomplete until the last file has its place.
        for name in (INFO, *OF_FORMAT_1, *files):
            (folder / name).unlink(missing_ok=True)
        for name in sizes:
            (aside / name).rename(folder / name)
        (aside / INFO).rename(folder / INFO)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(aside: Path, dataset: Dataset, annotated: Annotated) -> dict[str, Any]:
    """Write all files but prepare.json and return what that says."""
    fitted = annotated.kind.fit(annotated, dataset.config)
    write_table(annotated.media.select(MEDIA_COLUMNS), aside / MEDIA)
    write_table(fitted.table, aside / TABLE)
    fitted.lexicon.save(aside)
    _write_missing(aside / MISSING, annotated)
    present = annotated.presence()
    return {
        "format": PREPARED_FORMAT,
        "dataset": dataset.config.name,
        "examples": annotated.kind.name,
        "root": str(dataset.root),
        "splits": {
            name: _counts(annotated, name, present) | dict(fitted.counts.get(name, {}))
            for name in annotated.splits
        },
        "same_file": [list(ids) for ids in annotated.same_file],
        **fitted.facts,
        **fitted.lexicon.sizes(),
        "cautions": list(fitted.cautions),
        "word_vectors": _write_word_vectors(aside, dataset.config, fitted.lexicon),
    }


def _counts(annotated: Annotated, name: str, present: np.ndarray) -> dict[str, Any]:
    """Return where the rows of a split are, and how many of them are present."""
    media, examples = (annotated.rows_of(t, name) for t in (annotated.media, annotated.examples))
    there = int(pc.sum(annotated.media["present"].slice(*media)).as_py() or 0)
    n_present = int(present[examples[0] : sum(examples)].sum())
    return {
        annotated.kind.name: _expected_and_present(examples[1], n_present),
        "videos": _expected_and_present(media[1], there),
        "rows": [media, examples],
    }


def _expected_and_present(expected: int, present: int) -> dict[str, int]:
    return {"expected": expected, "present": present, "missing": expected - present}


def _write_word_vectors(aside: Path, config: DataConfig, lexicon: Lexicon) -> dict[str, Any]:
    if Vocabulary.name not in lexicon.names:
        said = "no words are learned from these examples"
        return {"file": None, "found": 0, "words": 0, "size": config.word_size, "said": said}
    vocabulary = lexicon.of(Vocabulary)
    n_words = len(vocabulary) - 2
    if config.word_vectors is None:
        said = "no word vectors were given (data.word_vectors): training starts from random ones"
        return {"file": None, "found": 0, "words": n_words, "size": config.word_size, "said": said}
    vectors = read_word_vectors(config.word_vectors, vocabulary.tokens, config.word_size)
    np.save(aside / WORD_VECTORS, vectors)
    found = int(vectors.any(axis=1).sum())
    said = f"vectors of {found} of {n_words} words are from {config.word_vectors}; the rest is zero"
    return {
        "file": config.word_vectors,
        "found": found,
        "words": n_words,
        "size": config.word_size,
        "said": said,
    }


def _oddities(problems: Sequence[Problem]) -> list[str]:
    """Say what is odd but does not stop: how often, and the first case."""
    told = [problem for problem in problems if problem.kind != "missing_video"]
    counts = Counter(problem.kind for problem in told)
    first = {problem.kind: problem.detail for problem in reversed(told)}
    return [f"{n} x {PROBLEM_KINDS[kind]}, first: {first[kind]}" for kind, n in counts.items()]
