"""`msvqa prepare`: annotations become a manifest, a vocabulary and an answer list."""

import hashlib
import json
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from msvqa.data.annotations import Annotations, Row, several
from msvqa.data.cautions import cautions
from msvqa.data.dataset import (
    INFO,
    PREPARED_FORMAT,
    Dataset,
    Prepared,
    open_dataset,
    prepared_location,
)
from msvqa.data.leakage import how_to_allow, shared_ids
from msvqa.data.problems import AnnotatedVideo, absence, annotation_problems, group_by_video
from msvqa.data.schema import MANIFEST, PROBLEM_KINDS, REFUSED_KINDS, Problem
from msvqa.data.text import AnswerList, Vocabulary, tokenize
from msvqa.data.video_files import endings_tried
from msvqa.data.word_vectors import check_word_vectors, read_word_vectors
from msvqa.engine import cluster
from msvqa.errors import DataError
from msvqa.files import turn
from msvqa.recipe import DataConfig
from msvqa.storage import Folder, is_remote, join, open_folder

logger = logging.getLogger(__name__)

MISSING = "missing.txt"
FILES = ("manifest.parquet", "vocabulary.json", "answers.json", "word_vectors.npy", MISSING)


def prepare(config: DataConfig, *, need_videos: bool = True) -> Prepared:
    """Return the prepared folder of a data set; build it if it is absent or anything has changed.

    Changes are seen in the annotation files, the settings, the word vectors and in which videos are
    there. Clip stores inside the folder stay.

    Args:
        config: the data set.
        need_videos: false where features come from files, so that missing videos are no problem.

    Raises:
        DataError: annotations or word vectors cannot be used, or videos are missing and that is
            not allowed.
        StorageError: an object store that cannot be read or written.
        ClusterError: the folders do not outlive this job.
    """
    location = prepared_location(config)
    cluster.refuse_lost({"data.root": config.root, "data.prepared": location})
    if config.word_vectors:
        check_word_vectors(config.word_vectors, config.word_size)
    dataset = open_dataset(config)
    annotations = dataset.read()
    videos = group_by_video(dataset, annotations.rows)
    problems = annotation_problems(dataset, annotations, videos)
    _refuse(dataset, annotations, problems)
    storage = open_folder(location)
    if need_videos:
        _check_missing(config, storage, videos)
    identity = _identity(dataset, videos)
    if not _is_current(location, identity):
        with _locked(storage.path):
            # Another process may have built it while this one waited.
            if not _is_current(location, identity):
                _forget(storage)
                notes = [*annotations.notes, *_oddities(problems)]
                _build(storage.path, dataset, videos, identity, notes)
                storage.put(*FILES)
                storage.put(INFO)
    return Prepared.open(location)


def _forget(storage: Folder) -> None:
    """Remove what an earlier preparation has left in an object store; on a disk it is replaced."""
    if is_remote(storage.location):
        for name in (INFO, *FILES):
            storage.remove(name)


def summary(prepared: Prepared) -> list[str]:
    """Return lines that say what is there: counts of every split, sizes, and what to know."""
    lines = []
    for name, counts in prepared.info["splits"].items():
        questions, videos = counts["questions"], counts["videos"]
        lines.append(
            f"{name}: {questions['present']} of {questions['expected']} questions, "
            f"{videos['present']} of {videos['expected']} videos, {videos['missing']} missing"
        )
    words, answers = prepared.info["vocabulary"], prepared.info["answers"]
    lines.append(f"{words} words, {answers} answers; {prepared.info['word_vectors']['said']}")
    if any(counts["videos"]["missing"] for counts in prepared.info["splits"].values()):
        lines.append(f"missing videos are listed in {join(prepared.location, MISSING)}")
    return [*lines, *prepared.info["notes"]]


def _refuse(dataset: Dataset, annotations: Annotations, problems: Sequence[Problem]) -> None:
    refused = [problem for problem in problems if problem.kind in REFUSED_KINDS]
    if refused:
        n = len(refused)
        count = f"{n} problem{'s' if n > 1 else ''} that must be put right"
        raise DataError(f"{dataset.root}: {count}\n{several(refused)}{how_to_allow(refused)}")
    if not any(row.split == "train" for row in annotations.rows):
        raise DataError(f"{dataset.root}: no training questions, and so no words and no answers")


def _check_missing(config: DataConfig, folder: Folder, videos: Sequence[AnnotatedVideo]) -> None:
    missing = [video for video in videos if not video.file.path]
    if not missing or config.allow_missing:
        return
    with _locked(folder.path):
        _write_missing(folder.path / MISSING, videos)
        folder.put(MISSING)
    n_questions = sum(len(video.rows) for video in missing)
    total = sum(len(video.rows) for video in videos)
    lines = [f"{video.split} {video.video_id}: {absence(video.file)}" for video in missing]
    raise DataError(
        f"{config.root}: {len(missing)} of {len(videos)} videos are missing "
        f"({n_questions} of {total} questions)\n{several(lines)}\n"
        f"{endings_tried(video.file for video in missing)}"
        f"all are listed in {join(folder.location, MISSING)}; "
        "to go on without them: --allow-missing, or data.allow_missing=true"
    )


def _write_missing(path: Path, videos: Sequence[AnnotatedVideo]) -> None:
    lines = [f"{v.split}\t{v.video_id}\t{v.file.expected}\n" for v in videos if not v.file.path]
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


def _identity(dataset: Dataset, videos: Sequence[AnnotatedVideo]) -> dict[str, Any]:
    """Return everything that the content of the folder depends on."""
    vectors = dataset.config.word_vectors
    stat = Path(vectors).stat() if vectors and Path(vectors).is_file() else None
    present = "".join(f"{v.split}\t{v.video_id}\t{v.file.path}\n" for v in videos)
    return {
        "format": PREPARED_FORMAT,
        "root": str(dataset.root),
        "settings": dataset.config.model_dump(
            mode="json", exclude={"root", "prepared", "allow_missing", "equal_videos"}
        ),
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
    return prepared.info.get("identity") == identity and sizes == _sizes(prepared.path)


def _sizes(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_size for name in FILES if (folder / name).is_file()}


def _build(
    folder: Path,
    dataset: Dataset,
    videos: Sequence[AnnotatedVideo],
    identity: dict[str, Any],
    notes: Sequence[str],
) -> None:
    for stopped in folder.glob(".building-*"):
        shutil.rmtree(stopped, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=".building-", dir=folder))
    try:
        info = _write(aside, dataset, videos)
        info |= {"notes": [*notes, *info["cautions"]], "identity": identity, "files": _sizes(aside)}
        (aside / INFO).write_text(json.dumps(info, indent=1, ensure_ascii=False), encoding="utf-8")
        # Without prepare.json the folder counts as incomplete until the last file has its place.
        (folder / INFO).unlink(missing_ok=True)
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
            if (aside / name).is_file():
                (aside / name).rename(folder / name)
        (aside / INFO).rename(folder / INFO)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(aside: Path, dataset: Dataset, videos: Sequence[AnnotatedVideo]) -> dict[str, Any]:
    """Write all files but prepare.json and return what that says."""
    rows = [row for video in videos for row in video.rows]
    tokens = {text: tokenize(text) for text in {row.question for row in rows}}
    # In the order of the file, not of the videos: it decides the ids of words and of equally
    # frequent answers.
    train = sorted((row for row in rows if row.split == "train"), key=lambda row: row.number)
    vocabulary = Vocabulary.build(tokens[row.question] for row in train)
    answers = AnswerList.build((row.answer for row in train), dataset.config.answer_top)
    encoder = _Encoder(vocabulary, answers, tokens)
    manifest = [encoder.manifest_row(video) for video in videos]
    pq.write_table(pa.Table.from_pylist(manifest, schema=MANIFEST), aside / "manifest.parquet")
    vocabulary.save(aside / "vocabulary.json")
    answers.save(aside / "answers.json")
    _write_missing(aside / MISSING, videos)
    types = [*dataset.question_types, *(row.type for row in rows)]
    return {
        "format": PREPARED_FORMAT,
        "dataset": dataset.config.name,
        "root": str(dataset.root),
        "splits": {name: _counts(name, videos, encoder) for name in dataset.splits},
        "same_file": shared_ids(videos, dataset.root),
        "question_types": list(dict.fromkeys(types)),
        "vocabulary": len(vocabulary),
        "answers": len(answers),
        "cautions": cautions(rows, tokens),
        "word_vectors": _write_word_vectors(aside, dataset.config, vocabulary),
    }


@dataclass(frozen=True)
class _Encoder:
    vocabulary: Vocabulary
    answers: AnswerList
    tokens: dict[str, list[str]]

    def manifest_row(self, video: AnnotatedVideo) -> dict[str, Any]:
        return {
            "video_id": video.video_id,
            "split": video.split,
            "path": video.file.path,
            "present": bool(video.file.path),
            "questions": [self._question(row) for row in video.rows],
        }

    def answer_id(self, row: Row) -> int:
        return self.answers.encode(row.answer, train=row.split == "train")

    def words(self, row: Row) -> list[int]:
        return self.vocabulary.encode(self.tokens[row.question])

    def _question(self, row: Row) -> dict[str, Any]:
        return {
            "question_id": row.question_id,
            "question": row.question,
            "answer": row.answer,
            "type": row.type,
            "tokens": self.words(row),
            "answer_id": self.answer_id(row),
        }


def _counts(name: str, videos: Sequence[AnnotatedVideo], encoder: _Encoder) -> dict[str, Any]:
    chosen = [video for video in videos if video.split == name]
    present = [video for video in chosen if video.file.path]
    rows = [row for video in chosen for row in video.rows]
    n_present = sum(len(video.rows) for video in present)
    return {
        "questions": _expected_and_present(len(rows), n_present),
        "videos": _expected_and_present(len(chosen), len(present)),
        "unknown_answers": sum(encoder.answer_id(row) < 2 for row in rows),
        "unknown_words": sum(encoder.words(row).count(1) for row in rows),
    }


def _expected_and_present(expected: int, present: int) -> dict[str, int]:
    return {"expected": expected, "present": present, "missing": expected - present}


def _write_word_vectors(aside: Path, config: DataConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    n_words = len(vocabulary) - 2
    if config.word_vectors is None:
        said = "no word vectors were given (data.word_vectors): training starts from random ones"
        return {"file": None, "found": 0, "words": n_words, "size": config.word_size, "said": said}
    vectors = read_word_vectors(config.word_vectors, vocabulary.tokens, config.word_size)
    np.save(aside / "word_vectors.npy", vectors)
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
