"""Videos of the QQ Browser AI Algorithm Competition 2021, track 1: tags, and pairs of videos.

    pointwise/*.tfrecords              videos with tags
    pairwise/pairwise.tfrecords        videos with tags, and
    pairwise/label.tsv                 pairs of them: two ids and a similarity, divided by tabs
    test_a/*.tfrecords  test_b/...     videos without tags
    tag_list.txt                       the tags that count, one number a line

A record has `id`, `title`, `frame_feature` (an entry of 1536 float16 for each second) and `tag_id`.
A part that is absent is absent: the others can be used without it. Where a `label.tsv` lies beside
the records of a test, the part is pairs as well.
Task: "CIKM 2021 AnalytiCup: Multimodal Video Similarity Challenge".
"""

import hashlib
import re
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msvqa.data.annotated import MEDIA_COLUMNS, Annotated
from msvqa.data.dataset import Dataset
from msvqa.data.examples.pairs import Pairs
from msvqa.data.examples.tags import Tags
from msvqa.data.examples.titled import TAG_LIST, Titled, TitledConfig
from msvqa.data.prepared import prepared_location
from msvqa.data.record_index import indices_of
from msvqa.data.records import SUFFIXES
from msvqa.data.root import SourceFile
from msvqa.data.schema import Problem
from msvqa.data.subwords import vocabulary_files
from msvqa.data.titled_media import (
    VIDEOS,
    Labels,
    pair_examples,
    similarity_problem,
    tag_examples,
)
from msvqa.errors import DataError, one_of
from msvqa.storage import open_folder
from msvqa.text_files import read_lines

Part = Literal["pointwise", "pairwise", "test_a", "test_b"]
PARTS: tuple[Part, ...] = ("pointwise", "pairwise", "test_a", "test_b")
TAGS, LABELS = "tag_list.txt", "label.tsv"
INDICES = "-records"
"""Ending of the folder with the indices of all files of records."""
MAX_TAG_DIGITS = 18


class QQBrowser(Dataset):
    """Titles, tags and frame features of videos; how alike pairs of them are."""

    class Config(TitledConfig, Dataset.Config):
        """Which part is meant."""

        names_part: ClassVar[tuple[str, ...]] = ("part",)
        name: str = "qq_browser"
        part: Part = "pointwise"

    config: Config

    def source_files(self) -> list[SourceFile]:
        """Return lists of tags and pairs, and the vocabulary; records are known by checksums."""
        names = [TAGS, *([self._labels] if self._has_labels else [])]
        sources = [self.root.source(name) for name in names]
        return [*sources, *vocabulary_files(self.config.tokenizer_folder)]

    def fingerprint(self) -> dict[str, str]:
        """Return the SHA-256 of every source file, and of the checksums of all records."""
        digests = {}
        for name, table in self._indices.items():
            digest = hashlib.sha256()
            for column in ("start", "end", "checksum"):
                digest.update(np.ascontiguousarray(table[column].to_numpy()).tobytes())
            digests[name] = digest.hexdigest()
        return super().fingerprint() | digests

    def annotate(self) -> Annotated:
        """Read titles, tags and pairs; the frames stay where they are."""
        problems: list[Problem] = []
        videos = self._videos(problems)
        kind: type[Titled] = Pairs if self._has_labels else Tags
        if kind is Pairs:
            labels = self._read_labels(problems)
            videos = pa.concat_tables([videos, self._unknown(videos, labels, problems)])
            examples = pair_examples(videos.combine_chunks(), labels, self._split)
        else:
            examples = tag_examples(videos)
        return Annotated(
            kind=kind,
            splits=(self._split,),
            media=videos.select(MEDIA_COLUMNS.names).combine_chunks(),
            examples=examples,
            problems=problems,
            facts={TAG_LIST: self._tags()},
        )

    @property
    def _split(self) -> str:
        return "test" if self.config.part.startswith("test") else "train"

    @property
    def _labels(self) -> str:
        return f"{self.config.part}/{LABELS}"

    @property
    def _has_labels(self) -> bool:
        return self.config.part == "pairwise" or self.root.size(self._labels) is not None

    @cached_property
    def _indices(self) -> dict[str, pa.Table]:
        """Return the index of every file of records of the part, by its name below the root.

        Raises:
            DataError: there is none.
        """
        part = self.config.part
        names = [n for n in self.root.names(part) if n.endswith(SUFFIXES)]
        if not names:
            there = [p for p in PARTS if any(n.endswith(SUFFIXES) for n in self.root.names(p))]
            has = f"there are the parts {one_of(there)}" if there else "no other part is there"
            raise DataError(f"{self.root}: no files {part}/*{SUFFIXES[0]}; {has}")
        # Beside the prepared folder: that appears whole, after all records were read.
        prepared = open_folder(prepared_location(self.config)).path
        files = [f"{part}/{name}" for name in sorted(names, key=_natural)]
        return indices_of(
            {file: self._record_file(file) for file in files},
            prepared.with_name(f"{prepared.name}{INDICES}"),
        )

    def _record_file(self, name: str) -> Path:
        if (target := self.root.leads_out(name)) is not None:
            raise DataError(
                f"{self.root}: {name} leaves the data root by a link, to {target}; "
                "data.follow_links=true follows such links"
            )
        # Not by `source`: files of records are larger than annotations may be.
        return self.root.local(name)

    def _videos(self, problems: list[Problem]) -> pa.Table:
        """Return the media of all files; what is damaged is an absent one."""
        tables = [self._of_file(file, index, problems) for file, index in self._indices.items()]
        whole = pa.concat_tables(tables).combine_chunks()
        ids = whole["id"].to_pylist()
        first = dict(zip(reversed(ids), reversed(range(len(ids))), strict=True))
        if len(first) == len(ids):
            return whole
        for row, video in enumerate(ids):
            if first[video] != row:
                file, start = whole["expected"][row], whole["start"][row]
                detail = f"{file}: the record at byte {start} has the id {video} of an earlier one"
                problems.append(_problem("duplicate_record", detail, self._split, video))
        return whole.take(pa.array(sorted(first.values()), pa.int64()))

    def _of_file(self, file: str, index: pa.Table, problems: list[Problem]) -> pa.Table:
        """Return the media of one file."""
        n, sound = len(index), pc.equal(index["error"], "")
        place = [f"{file}@{start}" for start in index["start"].to_pylist()]
        columns = {
            "id": pc.if_else(sound, index["id"], pa.array(place, pa.string())),
            "path": pc.if_else(sound, file, ""),
            "kind": pa.array(["record"] * n, pa.string()),
            "start": index["start"].cast(pa.float64()),
            "end": index["end"].cast(pa.float64()),
            "split": pa.array([self._split] * n, pa.string()),
            "present": sound,
            "expected": pa.array([file] * n, pa.string()),
            "absence": index["error"],
            "title": index["title"],
            "tags": index["tags"],
        }
        for row in np.flatnonzero(~sound.to_numpy()).tolist():
            start, error = index["start"][row].as_py(), index["error"][row].as_py()
            detail = f"{file}: record {row} at byte {start}: {error}"
            problems.append(_problem("damaged_record", detail, self._split, place[row], file, row))
        return pa.table(columns).select(VIDEOS.names).cast(VIDEOS)

    def _read_labels(self, problems: list[Problem]) -> Labels:
        labels, file = Labels([], [], [], []), self.root.source(self._labels)
        for number, line in enumerate(read_lines(file.path, file), start=1):
            if not line.strip():
                continue
            cells = line.rstrip("\r\n").split("\t")
            words = _label_problem(cells)
            if words:
                detail = f"{file}: line {number}: {words}"
                problems.append(_problem("invalid_row", detail, self._split, "", file.name, number))
                continue
            labels.first.append(cells[0])
            labels.second.append(cells[1])
            labels.similarity.append(float(cells[2]))
            labels.row.append(number)
        return labels

    def _unknown(self, videos: pa.Table, labels: Labels, problems: list[Problem]) -> pa.Table:
        """Return absent media for the videos of pairs that no record holds."""
        known, unknown = set(videos["id"].to_pylist()), dict[str, int]()
        for row, *ids in zip(labels.row, labels.first, labels.second, strict=True):
            for video in ids:
                if video not in known:
                    unknown.setdefault(video, row)
        rows = []
        for video, row in unknown.items():
            words = f"{LABELS} names it in line {row}, and no record of {self.config.part} has it"
            detail = f"video {video}: {words}"
            problems.append(_problem("unknown_video", detail, self._split, video, LABELS, row))
            rows.append(
                {"id": video, "path": "", "kind": "record", "split": self._split,
                 "present": False, "expected": self.config.part, "absence": words,
                 "title": "", "tags": []}
            )  # fmt: skip
        return pa.Table.from_pylist(rows, schema=VIDEOS)

    def _tags(self) -> list[str]:
        """Return the tags that count.

        Raises:
            DataError: a line is no number.
        """
        file, tags = self.root.source(TAGS), []
        for number, line in enumerate(read_lines(file.path, file), start=1):
            tag = line.strip()
            if not tag:
                continue
            if not (tag.isascii() and tag.isdecimal() and len(tag) <= MAX_TAG_DIGITS):
                raise DataError(f"{file}: line {number}: {tag[:40]!r} is not a whole number")
            tags.append(str(int(tag)))
        return tags


def _problem(kind: str, detail: str, split: str, video: str, *place: str | int) -> Problem:
    path, row = place if place else ("", None)
    return Problem(
        kind=kind, detail=detail, split=split, video_id=video, path=str(path),
        row=None if row is None else int(row),
    )  # fmt: skip


def _label_problem(cells: list[str]) -> str:
    if len(cells) != 3 or not cells[0] or not cells[1]:
        return f"two ids and a number, divided by tabs, are needed, found {len(cells)} cells"
    return similarity_problem(cells[2])


def _natural(name: str) -> list[tuple[int, str]]:
    """Return what sorts pretrain_2 before pretrain_10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
