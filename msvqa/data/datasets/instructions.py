"""Instruction data: conversations about videos and images, and without either, in JSON files.

    FILE    a list of rows, or JSONL: {"video" or "image": path, "start"?: seconds, "end"?: seconds,
            "QA": [{"i"?: instruction, "q"?: question, "a": answer}, ...]}

Rows of a source of kind `text` name no medium. Paths are relative to the `root` of their source; a
video is a file or a folder of frames. The layout is that of VideoChat2's instruction data: Li et
al., "MVBench", CVPR 2024, https://arxiv.org/abs/2311.17005, section 4.2.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from msvqa.data.annotated import Annotated
from msvqa.data.annotations import unusable_path
from msvqa.data.conversations.conversation import Conversation, Kind, Targets, Turn
from msvqa.data.conversations.forms import form_of
from msvqa.data.conversations.tokens import Tokenization
from msvqa.data.dataset import Dataset
from msvqa.data.examples.conversations import Conversations, media_column
from msvqa.data.examples.examples import NO_MEDIUM
from msvqa.data.json_rows import json_rows
from msvqa.data.placed_media import MediaFolders, Place, PlacedMedia, Where
from msvqa.data.root import SourceFile
from msvqa.data.schema import Problem
from msvqa.errors import DataError, PackageError, did_you_mean
from msvqa.files import hash_file
from msvqa.sections import Config
from msvqa.storage import DiskPath

MAX_TEXT_LENGTH, MAX_TURNS = 100_000, 1_000
TOKENIZER = "tokenizer.json"
TEXTS = pa.list_(pa.string())

LEFT_OUT = {"too_long": "its question alone is longer than the limit", "no_target": "no answer"}
"""What is said of rows whose limit leaves nothing to learn, by what became of them."""


class SourceConfig(Config):
    """One of several files of conversations."""

    file: str
    """Relative to the data root."""
    root: str = ""
    """Folder of its media, relative to the data root."""
    kind: Kind = "video"
    weight: float = Field(default=1.0, gt=0, le=100)
    """How often its rows are in an epoch: 0.5 takes every second row, 2 each of them twice."""
    split: Literal["train", "val"] = "train"


class MeasureConfig(Config):
    """What is measured before training: how much of the rows a limit leaves."""

    tokenizer: DiskPath
    """Folder of the language model."""
    form: Literal["vicuna", "mistral", "chat_template"] = "vicuna"
    targets: Targets = "answers_only"
    limit: int = Field(default=512, ge=8)
    system: str = ""


class Instructions(Dataset):
    """Conversations of several sources."""

    class Config(Dataset.Config):
        """Which files, and how much may be wrong in them."""

        names_part = ("sources",)
        name: str = "instructions"
        sources: tuple[SourceConfig, ...] = Field(min_length=1)
        most_dropped: float = Field(default=0.01, ge=0, le=1)
        """Largest part of a source's rows that may be unusable; each is left out, by name."""
        measure: MeasureConfig | None = None
        """Count which rows a language model's limit cuts, and leave out those of which nothing can
        be learned; null: training counts them as they come."""

    config: Config
    splits: ClassVar[tuple[str, ...]] = ("train", "val")

    def source_files(self) -> list[SourceFile]:
        """Return the files of all sources."""
        return [self.root.source(source.file) for source in self.config.sources]

    def fingerprint(self) -> dict[str, str]:
        """Return the SHA-256 of every file by its location, and of what measures."""
        found = {file.location: hash_file(file.path) for file in self.source_files()}
        if self._tokenizer_file is not None:
            found["measure"] = hash_file(self._tokenizer_file)
        return found

    @property
    def _tokenizer_file(self) -> Path | None:
        measure = self.config.measure
        file = Path(measure.tokenizer) / TOKENIZER if measure else None
        return file if file is not None and file.is_file() else None

    def annotate(self) -> Annotated:
        """Read all rows, leave out those that cannot be used, and find the media.

        Raises:
            DataError: a file is absent or none of rows, or too many of its rows cannot be used.
        """
        rows = {split: _Rows() for split in self.splits}
        problems: list[Problem] = []
        notes: list[str] = []
        for source in self.config.sources:
            read = self._read(source)
            problems += read.problems
            notes += read.notes(source)
            rows[source.split].take(read, source)
        media = self._media(rows)
        table = pa.concat_tables([rows[split].table(split) for split in self.splits])
        return Annotated(
            kind=Conversations,
            splits=self.splits,
            media=media.table,
            examples=table,
            problems=[*problems, *media.problems(self.splits, self.config.shared_videos)],
            notes=notes,
            same_file=media.same_file,
        )

    def _media(self, rows: "dict[str, _Rows]") -> PlacedMedia:
        folders = MediaFolders(self.root)
        places = [(split, place) for split in self.splits for place in rows[split].places]
        by_path = {path: folders.find(path) for path in dict.fromkeys(p.path for _, p in places)}
        found = {key: by_path[key[1].path] for key in places}
        return PlacedMedia(
            places, found, self.root, lambda split, place: rows[split].places[place][1]
        )

    def _read(self, source: SourceConfig) -> "_Read":
        file, read = self.root.source(source.file), _Read()
        if self.config.measure is not None:
            _ = self._tokenization  # an error of it is none of a row
        for number, row in json_rows(file, "conversations", "QA"):
            read.expected += 1
            found = self._usable(row, source, read)
            if isinstance(found, str):
                read.refuse(source.file, number, found)
            else:
                read.rows.append((number, *found))
        if read.unusable > self.config.most_dropped * read.expected:
            read.problems = [_refused(problem) for problem in read.problems]
        return read

    def _usable(
        self, row: Any, source: SourceConfig, read: "_Read"
    ) -> tuple[Place | None, tuple[Turn, ...]] | str:
        """Return medium and turns of a row, or why it is left out; count what was measured."""
        found = _row(row, source)
        if isinstance(found, str):
            return found
        try:
            outcome = self._measured(source.kind, found[1])
        except DataError as error:
            return str(error)
        read.outcomes[outcome] += 1
        return LEFT_OUT.get(outcome, found)

    def _measured(self, kind: Kind, turns: tuple[Turn, ...]) -> str:
        if self.config.measure is None:
            return "not measured"
        found = self._tokenization.fit(Conversation(kind, turns, self.config.measure.system))
        return found.outcome

    @cached_property
    def _tokenization(self) -> Tokenization:
        measure = self.config.measure
        assert measure is not None
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise PackageError(f"{error}: pip install 'transformers>=5'") from None
        library: Any = AutoTokenizer
        try:
            tokenizer = library.from_pretrained(
                measure.tokenizer, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"data.measure.tokenizer: {measure.tokenizer}: {error}") from None
        form = form_of(measure.form, tokenizer)
        return Tokenization(form, tokenizer, measure.targets, measure.limit)


@dataclass
class _Read:
    """The rows of one file."""

    rows: list[tuple[int, Place | None, tuple[Turn, ...]]] = field(default_factory=list)
    """Number in the file, medium and turns of each."""
    problems: list[Problem] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    expected: int = 0

    @property
    def unusable(self) -> int:
        """How many rows are left out because they are no conversations."""
        return len(self.problems) - self.outcomes["too_long"] - self.outcomes["no_target"]

    def refuse(self, source: str, row: int, words: str) -> None:
        """Leave out a row."""
        detail = f"{source}: row {row}: {words}"
        self.problems.append(Problem(kind="dropped_row", detail=detail, path=source, row=row))

    def notes(self, source: SourceConfig) -> list[str]:
        """Say how many rows there are, and what a limit makes of them."""
        left = f"{len(self.rows)} of {self.expected} rows"
        counts = [
            f"{name} {count}" for name, count in sorted(self.outcomes.items())
            if name != "not measured"
        ]  # fmt: skip
        measured = f"; within the limit: {', '.join(counts)}" if counts else ""
        return [f"{source.file}: {left}{measured}"]


@dataclass
class _Rows:
    """The rows of one split, and the media that they name by number."""

    places: dict[Place, tuple[int, Where]] = field(default_factory=dict)
    """Number of each medium, and the row that named it first."""
    columns: list[tuple[int, str, str, tuple[Turn, ...]]] = field(default_factory=list)

    def take(self, read: _Read, source: SourceConfig) -> None:
        """Take the rows of a file as often as its weight says."""
        for number, (row, place, turns) in enumerate(read.rows):
            medium = NO_MEDIUM
            times = _times(number, source.weight)
            if place is not None and times:
                new = (len(self.places), (source.file, row))
                medium = self.places.setdefault(place, new)[0]
            self.columns += [(medium, source.file, source.kind, turns)] * times

    def table(self, split: str) -> pa.Table:
        """Return the rows as a table."""
        of = self.columns
        return pa.table(
            {
                "media": media_column([medium for medium, *_ in of]),
                "split": pa.array([split] * len(of), pa.string()),
                "source": pa.array([source for _, source, _, _ in of], pa.string()),
                "kind": pa.array([kind for *_, kind, _ in of], pa.string()),
                **{
                    name: pa.array([[turn[n] for turn in turns] for *_, turns in of], TEXTS)
                    for n, name in enumerate(("questions", "answers", "instructions"))
                },
            }
        )


def _times(number: int, weight: float) -> int:
    """Return how often a row is taken: evenly over the rows, as often as a weight says."""
    return math.floor((number + 1) * weight) - math.floor(number * weight)


def _refused(problem: Problem) -> Problem:
    return Problem(kind="invalid_row", detail=problem.detail, path=problem.path, row=problem.row)


def _row(row: Any, source: SourceConfig) -> tuple[Place | None, tuple[Turn, ...]] | str:
    """Return medium and turns of a row, or what is wrong with it."""
    if not isinstance(row, dict):
        return f"an object with QA is needed, found {str(row)[:40]!r}"
    turns = _turns(row)
    if isinstance(turns, str):
        return turns
    place = _place(row, source)
    return place if isinstance(place, str) else (place, turns)


def _turns(row: dict[str, Any]) -> tuple[Turn, ...] | str:
    asked = row.get("QA")
    if not isinstance(asked, list) or not 0 < len(asked) <= MAX_TURNS:
        hint = did_you_mean("QA", set(row) - {"QA"})
        return f"key 'QA' must be a list of questions and answers{hint}"
    found = []
    for turn in asked:
        if not isinstance(turn, dict):
            return f"a turn is an object with q and a, found {str(turn)[:40]!r}"
        texts: tuple[Any, ...] = (turn.get("q", ""), turn.get("a"), turn.get("i", ""))
        if problem := next(filter(None, map(_text_problem, texts)), ""):
            return problem
        if not texts[1].strip():
            return "an answer 'a' is empty"
        found.append(Turn(*texts))
    return tuple(found)


def _text_problem(text: Any) -> str:
    if not isinstance(text, str):
        return f"'q', 'a' and 'i' are texts, found {str(text)[:40]!r}"
    if len(text) > MAX_TEXT_LENGTH:
        return f"a text is longer than {MAX_TEXT_LENGTH} characters"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a text is not valid Unicode"
    return ""


def _place(row: dict[str, Any], source: SourceConfig) -> Place | str | None:
    """Return the medium of a row, nothing for a row of text alone, or what is wrong."""
    named = [key for key in ("video", "image") if key in row]
    if source.kind == "text":
        return f"a row of kind text names a medium, {named[0]!r}" if named else None
    if named != [source.kind]:
        return f"key {source.kind!r} must name a file; there is {', '.join(named) or 'none'}"
    name, span = row[source.kind], (row.get("start"), row.get("end"))
    if not isinstance(name, str) or not name.strip():
        return f"key {source.kind!r} must be a path"
    if problem := unusable_path(name):
        return f"{name[:50]!r} cannot be the path of a file: {problem}"
    if problem := _span_problem(span, source.kind):
        return problem
    path = f"{source.root}/{name}" if source.root else name
    return Place(path, *(None if second is None else float(second) for second in span))


def _span_problem(span: tuple[Any, Any], kind: Kind) -> str:
    if any(type(value) not in (int, float, type(None)) for value in span):
        return f"'start' and 'end' are seconds, found {span}"
    start, end = span
    if kind == "image" and span != (None, None):
        return "an image has no 'start' and no 'end'"
    if not all(math.isfinite(second) for second in span if second is not None):
        return "'start' and 'end' are seconds"
    if (start or 0) < 0 or (end is not None and end <= (start or 0)):
        return f"'start' {start} and 'end' {end} are no part of a video"
    return ""
