"""MVBench as it is published: a file of questions for each task, and the media in folders.

    json/TASK.json                  lists of {"video", "question", "candidates", "answer",
                                    "start"?, "end"?}: 20 files
    video/FOLDER/...                media; each task has its folder (`msvqa.mvbench.tasks`)
    manifest.json                   optional, in place of the table of tasks: {"tasks": [{"task",
                                    "annotation", "media_root", "kind": "video" or "frame",
                                    "bounded", "items"}]}

Folders share names of files that are different videos, so a medium is known by its whole path. What
is absent, as videos that were withdrawn are, is a problem with a name, and lowers the coverage.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, ClassVar

import pyarrow as pa

from msvqa.data.annotated import MEDIA_COLUMNS, Annotated
from msvqa.data.annotations import unusable_path
from msvqa.data.dataset import Dataset
from msvqa.data.examples.choices import Choices
from msvqa.data.medium import IMAGE_SUFFIXES
from msvqa.data.placed_media import Found, Place, Where, media_problems, medium_row, same_file
from msvqa.data.root import SourceFile
from msvqa.data.sampling import FIRST_FRAME
from msvqa.data.schema import Problem
from msvqa.data.video_files import VideoFile, is_video
from msvqa.errors import DataError, did_you_mean
from msvqa.mvbench.tasks import BY_NAME, TASKS, Task
from msvqa.text_files import parse_json, read_text

MANIFEST = "manifest.json"
ANNOTATIONS, MEDIA = "json", "video"
SPLIT = "test"
MAX_OPTIONS = 26
"""As many as there are letters."""


@dataclass(frozen=True)
class TaskFiles:
    """Where a task's questions and media are, relative to the data root."""

    task: Task
    annotation: str
    items: int | None = None
    """How many questions there must be, where something says so."""


@dataclass(frozen=True)
class Item:
    """One question about one medium."""

    task: str
    index: int
    """In the file of its task, from 0."""
    question: str
    candidates: tuple[str, ...]
    answer: int
    """Which candidate is right."""
    place: Place
    """Path below the data root, and span where it is to be applied."""
    media_root: str
    source: str
    """Name of the annotation file."""


@dataclass
class Questions:
    """The questions of all tasks that can be asked, and what is wrong with the others."""

    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    expected: dict[str, int] = field(default_factory=dict)
    """How many questions the file of each task has."""
    _rows: dict[Place, Where] = field(default_factory=dict, init=False, repr=False, compare=False)

    def note(self, kind: str, source: str, index: int | None, words: str) -> None:
        """Note what is wrong with a file, or with one of its rows."""
        row = "" if index is None else f" row {index}:"
        detail = f"{source}:{row} {words}"
        self.problems.append(Problem(kind=kind, detail=detail, split=SPLIT, path=source, row=index))

    def row_of(self, split: str, place: Place) -> Where | None:
        """Return the row that asks about a medium first."""
        return self._rows.get(place)

    def take(self, item: Item) -> None:
        """Keep a question that can be asked."""
        self.items.append(item)
        self._rows.setdefault(item.place, (item.source, item.index))


class MVBench(Dataset):
    """The benchmark at `root`; all of it is the split `test`."""

    class Config(Dataset.Config):
        """Where the files are."""

        name: str = "mvbench"

    splits: ClassVar[tuple[str, ...]] = (SPLIT,)
    is_for_training = False
    config: Config

    @cached_property
    def tasks(self) -> list[TaskFiles]:
        """The tasks in the order of the leaderboard: those of the manifest, else all twenty.

        Raises:
            DataError: the manifest cannot be used.
        """
        if self.root.size(MANIFEST) is None:
            return [
                TaskFiles(
                    replace(task, media_root=f"{MEDIA}/{task.media_root}"),
                    f"{ANNOTATIONS}/{task.file}.json",
                )
                for task in TASKS
            ]
        source = self.root.source(MANIFEST)
        content = _json(source)
        if not isinstance(content, dict) or not isinstance(content.get("tasks"), list):
            raise DataError(f"{source}: an object with a list 'tasks' is needed")
        found = [self._task(source, number, row) for number, row in enumerate(content["tasks"])]
        order = [task.name for task in TASKS]
        names = [files.task.name for files in found]
        if len(set(names)) < len(names):
            raise DataError(f"{source}: a task is there twice")
        return sorted(found, key=lambda files: order.index(files.task.name))

    def _task(self, source: SourceFile, number: int, row: Any) -> TaskFiles:
        wanted = {"task": str, "annotation": str, "media_root": str, "kind": str, "bounded": bool}
        for key, kind in wanted.items():
            if not isinstance(row, dict) or not isinstance(row.get(key), kind):
                raise DataError(f"{source}: tasks.{number}.{key}: a {kind.__name__} is needed")
        if row["task"] not in BY_NAME:
            hint = did_you_mean(row["task"], BY_NAME)
            raise DataError(f"{source}: tasks.{number}.task: no task {row['task']!r}{hint}")
        if row["kind"] not in ("video", "frame"):
            raise DataError(f"{source}: tasks.{number}.kind: must be 'video' or 'frame'")
        for key in ("annotation", "media_root"):
            if unusable_path(row[key]) or self.root.inside(row[key]) is None:
                raise DataError(f"{source}: tasks.{number}.{key}: leaves the data root")
        task = replace(
            BY_NAME[row["task"]],
            media_root=str(self.root.inside(row["media_root"])),
            bounded=row["bounded"],
            is_frames=row["kind"] == "frame",
        )
        items = row.get("items")
        return TaskFiles(task, row["annotation"], items if type(items) is int else None)

    def source_files(self) -> list[SourceFile]:
        """Return the annotation files of all tasks."""
        return [self.root.source(files.annotation) for files in self.tasks]

    def read(self) -> Questions:
        """Return the questions of all tasks, those that can be asked and what is wrong.

        Raises:
            DataError: a file of annotations is absent or is no list.
        """
        questions = Questions()
        for files in self.tasks:
            source = self.root.source(files.annotation)
            rows = _json(source)
            if not isinstance(rows, list):
                raise DataError(f"{source}: a JSON list of questions is needed")
            questions.expected[files.task.name] = len(rows)
            if files.items not in (None, len(rows)):
                words = f"{len(rows)} questions, and {MANIFEST} says {files.items}"
                questions.note("invalid_source", source.name, None, words)
            for index, row in enumerate(rows):
                _read(files.task, source.name, index, row, questions)
        return questions

    def find(self, item: Item) -> Found:
        """Return the file of an item's medium, or its folder of frames."""
        task = next(files.task for files in self.tasks if files.task.name == item.task)
        inside = self.root.inside(item.place.path)
        if inside is None or not f"{inside}/".startswith(f"{item.media_root}/"):
            return Found(VideoFile("", item.place.path, leaves_root=True), "video")
        if task.is_frames:
            return Found(self._frames(inside), "frames")
        folder, _, name = inside.rpartition("/")
        found = self.videos.find(name, [folder])
        if not found.path and not found.leaves_root and is_video(name):
            # Copies are about that were encoded again, with another ending.
            other = self.videos.find(PurePosixPath(name).stem, [folder])
            found = replace(found, path=other.path, hint=found.hint or other.hint)
        return Found(found, "video")

    def _frames(self, folder: str) -> VideoFile:
        if not self.root.has_folder(folder):
            return VideoFile("", folder)
        if (target := self.root.leads_out(folder)) is not None:
            return VideoFile("", folder, leaves_root=True, link=target)
        if problem := _numbering(self.root.names(folder)):
            return VideoFile("", folder, hint=problem)
        return VideoFile(folder, folder)

    def found(self, items: Sequence[Item]) -> dict[Place, Found]:
        """Return where the medium of each place is."""
        of_place = {item.place: item for item in items}
        return {place: self.find(item) for place, item in of_place.items()}

    def annotate(self) -> Annotated:
        """Read all questions and find their media."""
        questions = self.read()
        found = self.found(questions.items)
        rows = {place: row for row, place in enumerate(found)}
        media = [medium_row(SPLIT, place, at) for place, at in found.items()]
        users = [(m["id"], SPLIT, self.root.identify(m["path"])) for m in media if m["path"]]
        by_split = {(SPLIT, place): at for place, at in found.items()}
        absent = media_problems(list(by_split), by_split, questions.row_of)
        return Annotated(
            kind=Choices,
            splits=self.splits,
            media=pa.Table.from_pylist(media, schema=MEDIA_COLUMNS),
            examples=_examples(questions.items, rows),
            problems=[*questions.problems, *absent],
            same_file=same_file(users),
            facts={"expected": questions.expected},
        )


def _json(source: SourceFile) -> Any:
    try:
        return parse_json(read_text(source.path, source))
    except ValueError as error:
        raise DataError(f"{source} is not valid JSON: {error}") from None


def _read(task: Task, source: str, index: int, row: Any, questions: Questions) -> None:
    if words := _row_problem(task, row):
        questions.note("invalid_row", source, index, words)
        return
    candidates = row["candidates"]
    span: tuple[float | None, float | None] = (None, None)
    if len(set(candidates)) < len(candidates):
        questions.note("duplicate_options", source, index, "two options have the same text")
    if task.applies_bounds:
        start, end = float(row["start"]), float(row["end"])
        span = (start, end)
        if start < 0 or end < start:
            words = f"'start' {start:g} and 'end' {end:g}: frames within the video are taken"
            questions.note("odd_bound", source, index, words)
    questions.take(
        Item(
            task=task.name,
            index=index,
            question=row["question"],
            candidates=tuple(candidates),
            answer=candidates.index(row["answer"]),
            place=Place(f"{task.media_root}/{row['video']}", *span),
            media_root=task.media_root,
            source=source,
        )
    )


def _row_problem(task: Task, row: Any) -> str:
    """Say why a row cannot be asked; nothing where it can."""
    if not isinstance(row, dict):
        return f"an object is needed, found {str(row)[:40]!r}"
    for key in ("video", "question", "answer"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            return f"key {key!r}: a text is needed{did_you_mean(key, set(row) - {key})}"
    if problem := unusable_path(row["video"]):
        return f"{row['video'][:50]!r} cannot be the path of a file: {problem}"
    candidates = row.get("candidates")
    if not isinstance(candidates, list) or not 2 <= len(candidates) <= MAX_OPTIONS:
        return f"'candidates' must be a list of 2 to {MAX_OPTIONS} texts"
    if not all(isinstance(text, str) and text.strip() for text in candidates):
        return "'candidates' must be texts that are not empty"
    # Other programs take the first of several, the last, or answer "(@)" for none.
    if (n := candidates.count(row["answer"])) != 1:
        return f"the answer {row['answer'][:40]!r} is {n} of the candidates and must be one"
    return _span_problem(row) if task.applies_bounds else ""


def _span_problem(row: dict[str, Any]) -> str:
    span: tuple[Any, Any] = (row.get("start"), row.get("end"))
    if all(type(value) in (int, float) and math.isfinite(value) for value in span):
        return ""
    return f"'start' and 'end' must be seconds, found {span}"


def _numbering(names: Sequence[str]) -> str:
    """Say what is wrong with the names of frames; nothing where they are 1, 2, 3 …"""
    stems = {
        path.stem for path in map(PurePosixPath, names) if path.suffix.lower() in IMAGE_SUFFIXES
    }
    numbers = {int(stem) for stem in stems if stem.isascii() and stem.isdigit()}
    if not stems:
        return "there is no frame in it"
    if len(numbers) < len(stems):
        return "frames must be named by their numbers, as 00001.jpg"
    if len({len(stem) for stem in stems}) > 1:
        return "the numbers of its frames must have the same length, as 00001.jpg"
    absent = set(range(FIRST_FRAME, FIRST_FRAME + len(stems))) - numbers
    return f"frame {min(absent)} is absent of {len(stems)}" if absent else ""


def _examples(items: Sequence[Item], rows: dict[Place, int]) -> pa.Table:
    columns = {
        "media": [[rows[item.place]] for item in items],
        "task": [item.task for item in items],
        "index": [item.index for item in items],
        "question": [item.question for item in items],
        "options": [list(item.candidates) for item in items],
        "answer": [item.answer for item in items],
    }
    table = pa.table(columns, schema=Choices.schema())
    return table.append_column("split", pa.array([SPLIT] * len(items), pa.string()))
