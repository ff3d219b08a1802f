"""Data sets as annotations with video files, and what `prepare` makes of them for training."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from msvqa.cache import fetch
from msvqa.data import DATASETS
from msvqa.data.annotations import Annotations
from msvqa.data.root import SourceFile, open_root
from msvqa.data.text import AnswerList, Vocabulary
from msvqa.data.video_files import VideoFile, VideoFolders
from msvqa.errors import DataError, IncompleteError, did_you_mean, one_of
from msvqa.files import hash_file
from msvqa.recipe import DataConfig
from msvqa.sections import resolve
from msvqa.storage import absolute, join

PREPARED_FORMAT = 1
INFO = "prepare.json"
"""The file that makes a prepared folder whole."""
MAX_INFO_BYTES = 50_000_000
OTHER_TYPE = "other"


class Dataset(ABC):
    """Annotations of all splits and the places of the videos, in one published layout."""

    class Config(DataConfig):
        """Fields of the `data` section of a recipe."""

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    question_types: ClassVar[tuple[str, ...]] = ("what", "who", "how", "when", "where")
    """Kinds of questions in the order of reports."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.root = open_root(config.root, follow_links=config.follow_links)
        self.videos = VideoFolders(self.root)

    @abstractmethod
    def source_files(self) -> list[SourceFile]:
        """Return the files that annotations come from.

        Raises:
            DataError: one is absent.
        """

    @abstractmethod
    def read(self) -> Annotations:
        """Read and check all annotations.

        Raises:
            DataError: a file is absent or cannot be read at all.
        """

    @abstractmethod
    def find_video(self, video_id: str, split: str) -> VideoFile:
        """Return where a video is."""

    def generate(self) -> None:  # noqa: B027 - nothing to do for most data sets
        """Write the files of the data set where they are absent; only generated sets do."""

    def question_type(self, question: str) -> str:
        """Return the kind of a question: its first word, or "other"."""
        first = question.split(maxsplit=1)[0].lower() if question.strip() else ""
        return first if first in self.question_types else OTHER_TYPE

    def fingerprint(self) -> dict[str, str]:
        """Return the SHA-256 of every source file by name."""
        return {file.name: hash_file(file.path) for file in self.source_files()}


def open_dataset(config: DataConfig) -> Dataset:
    """Return the data set that a section names; a generated one writes its files first.

    Raises:
        DataError, StorageError: no such data set, or its folder is absent.
    """
    try:
        kind = resolve(config.name, DATASETS, "data set")
    except ValueError as error:
        raise DataError(str(error)) from None
    if not isinstance(config, kind.Config):
        config = kind.Config.model_validate(config.model_dump())
    dataset: Dataset = kind(config)
    dataset.generate()
    dataset.root.check()
    return dataset


@dataclass(frozen=True, eq=False)
class Split:
    """The questions of one split, n of them, grouped by their N videos."""

    name: str
    video_id: list[str]
    """(N,)"""
    path: list[str]
    """(N,) full locations of the video files, empty where a file is absent"""
    video_row: np.ndarray
    """(n,) int64, row of the question's video in `video_id`"""
    question_id: np.ndarray
    """(n,) int64, as the annotations number them"""
    question: list[str]
    answer: list[str]
    question_type: list[str]
    tokens: np.ndarray
    """(sum of `length`,) int64, word ids of one question after another, see `words`"""
    length: np.ndarray
    """(n,) int64, number of words"""
    answer_id: np.ndarray
    """(n,) int64, class of the answer"""
    n_expected: int
    """Questions that the annotations hold for this split, with those of absent videos"""

    def __len__(self) -> int:
        return len(self.question_id)

    def __repr__(self) -> str:
        counts = f"{len(self)} of {self.n_expected} questions, {len(self.video_id)} videos"
        return f"Split({self.name!r}: {counts})"

    @cached_property
    def _start(self) -> np.ndarray:
        """(n,) int64, where in `tokens` a question begins."""
        return np.cumsum(self.length) - self.length

    def words(self, rows: np.ndarray) -> np.ndarray:
        """Return int64 (rows, L), the word ids of some questions, padded on the right with 0.

        L is the longest of these. All questions padded alike would take as much memory as the
        longest one of the split, and one long text among short ones is enough for gigabytes.
        """
        position = np.arange(int(self.length[rows].max(initial=0)))
        is_word = position < self.length[rows][:, None]
        padded = np.zeros(is_word.shape, dtype=np.int64)
        padded[is_word] = self.tokens[(self._start[rows][:, None] + position)[is_word]]
        return padded

    def without(self, video_ids: Collection[str]) -> "Split":
        """Return the split without some videos and their questions; `n_expected` stays."""
        dropped = set(video_ids)
        keep_video = np.array([video not in dropped for video in self.video_id], dtype=bool)
        keep = keep_video[self.video_row]
        rows = np.flatnonzero(keep)
        new_row = np.cumsum(keep_video) - 1
        return replace(
            self,
            video_id=[video for video in self.video_id if video not in dropped],
            path=[path for path, kept in zip(self.path, keep_video, strict=True) if kept],
            video_row=new_row[self.video_row[keep]].astype(np.int64),
            question_id=self.question_id[keep],
            question=[self.question[row] for row in rows],
            answer=[self.answer[row] for row in rows],
            question_type=[self.question_type[row] for row in rows],
            tokens=self.tokens[np.repeat(keep, self.length)],
            length=self.length[keep],
            answer_id=self.answer_id[keep],
        )


class Prepared:
    """A folder that `prepare` has completed: manifest, vocabulary, answer list and counts."""

    def __init__(self, location: str, path: Path, info: dict[str, Any]) -> None:
        self.location = location
        self.path = path
        """Where its files are on this machine."""
        self.info = info
        """Content of prepare.json: counts of every split, settings, notes."""
        self.copies: list[list[str]] = []
        """Ids of videos that a store has found to be the same byte for byte."""

    @classmethod
    def open(cls, location: str | Path) -> "Prepared":
        """Open a prepared folder.

        Raises:
            DataError: the folder is absent, incomplete or of another format.
        """
        location = absolute(location)
        try:
            path = fetch(location, INFO)
        except IncompleteError as error:
            raise DataError(f"{error}; run `msvqa prepare` first") from None
        file = path / INFO
        if file.stat().st_size > MAX_INFO_BYTES:
            raise DataError(f"{file} is larger than {MAX_INFO_BYTES} bytes")
        try:
            info = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{file} is damaged ({error}); run `msvqa prepare` again") from None
        found = info.get("format") if isinstance(info, dict) else None
        if found != PREPARED_FORMAT:
            raise DataError(
                f"{file}: format {found!r}, this version reads {PREPARED_FORMAT}; "
                "run `msvqa prepare` again"
            )
        return cls(location, path, info)

    def __repr__(self) -> str:
        return f"Prepared({self.location!r}, splits {', '.join(self.splits)})"

    def knowing(self, copies: list[list[str]]) -> "Prepared":
        """Return the same folder with what the store of its videos knows of their content."""
        prepared = Prepared(self.location, self.path, self.info)
        prepared.copies = copies
        return prepared

    @property
    def same_videos(self) -> list[list[str]]:
        """Ids of videos that are one file, or as far as is known equal ones."""
        return [*self.info.get("same_file", []), *self.copies]

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Words of the training questions."""
        return Vocabulary.load(self.path / "vocabulary.json")

    @cached_property
    def answers(self) -> AnswerList:
        """Answers that are classes."""
        return AnswerList.load(self.path / "answers.json")

    @property
    def root(self) -> str:
        """Data root that the paths of the manifest start at."""
        return str(self.info["root"])

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self.info["splits"])

    def word_vectors(self) -> np.ndarray | None:
        """Return float32 (words, width) in vocabulary order, None where none were given."""
        file = self.path / "word_vectors.npy"
        return np.load(file, allow_pickle=False) if file.is_file() else None

    def split(self, name: str, present_only: bool = True) -> Split:
        """Return the questions of a split; `present_only=False` keeps those of absent videos.

        Raises:
            DataError: no such split.
        """
        if name not in self.splits:
            known = one_of(self.splits)
            raise DataError(
                f"no split {name!r}{did_you_mean(name, self.splits)}; there are {known}"
            )
        table = pq.read_table(self.path / "manifest.parquet", memory_map=True)
        chosen = pc.equal(table["split"], name)
        if present_only:
            chosen = pc.and_(chosen, table["present"])
        return _split_of(name, table.filter(chosen), self.root, self.info["splits"][name])


def prepared_location(config: DataConfig) -> str:
    """Return the folder that a data set is prepared in."""
    if config.prepared is not None:
        return config.prepared
    identity = hashlib.sha256(open_root(config.root).location.encode()).hexdigest()[:8]
    return absolute(f"prepared/{config.name}-{identity}")


def _split_of(name: str, videos: pa.Table, root: str, counts: dict[str, Any]) -> Split:
    per_video = videos["questions"].combine_chunks()
    questions = per_video.flatten()
    words = questions.field("tokens")
    length = pc.list_value_length(words).to_numpy(zero_copy_only=False).astype(np.int64)
    n_of_video = pc.list_value_length(per_video).to_numpy(zero_copy_only=False)
    return Split(
        name=name,
        video_id=videos["video_id"].to_pylist(),
        path=[join(root, path) if path else "" for path in videos["path"].to_pylist()],
        video_row=np.repeat(np.arange(len(videos), dtype=np.int64), n_of_video),
        question_id=questions.field("question_id").to_numpy().copy(),
        question=questions.field("question").to_pylist(),
        answer=questions.field("answer").to_pylist(),
        question_type=questions.field("type").to_pylist(),
        tokens=words.flatten().to_numpy().astype(np.int64),
        length=length,
        answer_id=questions.field("answer_id").to_numpy().copy(),
        n_expected=int(counts["questions"]["expected"]),
    )
