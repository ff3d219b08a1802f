"""What is wrong with annotations and file names, found without opening a video."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from msvqa.data.annotated import MEDIA_COLUMNS, Annotated
from msvqa.data.annotations import Annotations, Row
from msvqa.data.dataset import Dataset
from msvqa.data.examples.questions import ANNOTATED, Questions
from msvqa.data.leakage import Allowed, shared_ids, shared_videos
from msvqa.data.schema import PROBLEMS, Problem
from msvqa.data.video_files import VideoFile, endings_tried
from msvqa.errors import DataError

if TYPE_CHECKING:
    from msvqa.data.question_set import QuestionSet


@dataclass(frozen=True)
class AnnotatedVideo:
    """A video of one split with its questions."""

    split: str
    video_id: str
    file: VideoFile
    rows: list[Row]


def annotate(dataset: "QuestionSet") -> Annotated:
    """Return the questions of a data set, grouped by video, with all that is wrong with them.

    Raises:
        DataError: a file of annotations is absent or cannot be read at all.
    """
    annotations = dataset.read()
    found = group_by_video(dataset, annotations.rows)
    # Words are numbered in the order of the files, and so are problems told: `found` keeps it.
    videos = sorted(found, key=lambda video: dataset.splits.index(video.split))
    missing = [video.file for video in videos if not video.file.path]
    types = [*dataset.question_types, *(row.type for video in videos for row in video.rows)]
    return Annotated(
        kind=Questions,
        splits=dataset.splits,
        media=pa.Table.from_pylist([_medium(video) for video in videos], schema=MEDIA_COLUMNS),
        examples=_questions(videos),
        problems=_problems(dataset, annotations, found),
        notes=annotations.notes,
        same_file=shared_ids(found, dataset.root),
        endings_tried=endings_tried(missing),
        facts={"question_types": list(dict.fromkeys(types))},
    )


def find_annotation_problems(dataset: Dataset) -> list[Problem]:
    """Return everything that is wrong with the annotations and the files they name."""
    try:
        return list(dataset.annotate().problems)
    except DataError as error:
        return [Problem(kind="invalid_source", detail=str(error))]


def _problems(
    dataset: "QuestionSet", annotations: Annotations, videos: Sequence[AnnotatedVideo]
) -> list[Problem]:
    allowed = Allowed(frozenset(dataset.config.shared_videos))
    return [
        *annotations.problems,
        *allowed.problems({video.video_id for video in videos}, dataset.splits),
        *(problem for video in videos if (problem := _file_problem(video)) is not None),
        *_repeated_questions(annotations.rows),
        *shared_videos(videos, dataset.root, allowed),
    ]


def _medium(video: AnnotatedVideo) -> dict[str, Any]:
    path, expected = video.file.path, video.file.expected
    return {
        "id": video.video_id, "path": path, "kind": "video", "split": video.split,
        "present": bool(path), "expected": expected, "absence": "" if path else absence(video.file),
    }  # fmt: skip


def _questions(videos: Sequence[AnnotatedVideo]) -> pa.Table:
    """Return the questions of videos; media are counted within each split."""
    rows, media, counted = [], [], Counter[str]()
    for video in videos:
        rows += video.rows
        media += [[counted[video.split]]] * len(video.rows)
        counted[video.split] += 1
    columns = {field.name: [getattr(row, field.name) for row in rows] for field in ANNOTATED}
    return pa.table(
        {"media": pa.array(media, type=Questions.schema().field("media").type)}
        | {field.name: pa.array(columns[field.name], type=field.type) for field in ANNOTATED}
    )


def group_by_video(dataset: "QuestionSet", rows: Iterable[Row]) -> list[AnnotatedVideo]:
    """Collect the questions of every video, in order of first appearance, and find its file."""
    grouped: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row.split, row.video_id].append(row)
    return [
        AnnotatedVideo(split, video_id, dataset.find_video(video_id, split), rows)
        for (split, video_id), rows in grouped.items()
    ]


def write_problems(problems: Sequence[Problem], path: str | Path) -> None:
    """Write problems as a Parquet table, one row each."""
    rows = [asdict(problem) for problem in problems]
    # Arrow's own words on a file that cannot be written say it twice.
    with Path(path).open("wb") as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=PROBLEMS), file)


def absence(file: VideoFile) -> str:
    """Say where an absent file should be, and what is there in its place."""
    # What cannot be seen is written out.
    expected = file.expected if file.expected.isprintable() else repr(file.expected)
    tried = " (or another ending of videos)" if file.any_suffix else ""
    return f"{expected}{tried}{f'; {file.hint}' if file.hint else ''}"


def _file_problem(video: AnnotatedVideo) -> Problem | None:
    file, n, first = video.file, len(video.rows), video.rows[0]
    about = (
        f"{first.source}: row {first.number}: video {video.video_id} of {video.split} "
        f"({n} question{'s' if n != 1 else ''})"
    )
    if not file.is_known:
        kind, detail = "unknown_video", f"{about}: {file.expected}"
    elif file.link:
        kind = "outside_root"
        detail = (
            f"{about}: {file.expected} leaves the data root by a link, to {file.link}; "
            "data.follow_links=true follows such links"
        )
    elif file.leaves_root:
        kind = "outside_root"
        detail = f"{about}: {file.expected} leaves the data root; copy the file into the root"
    elif not file.path:
        kind, detail = "missing_video", f"{about}: no file {absence(file)}"
    elif file.others:
        kind = "two_files"
        detail = f"{about}: {file.path} is taken, there is also {', '.join(file.others)}"
    else:
        return None
    return Problem(
        kind=kind,
        detail=detail,
        split=video.split,
        video_id=video.video_id,
        path=file.path or (file.expected if file.is_known else ""),
        row=first.number,
        question_id=first.question_id,
    )


def _repeated_questions(rows: Iterable[Row]) -> Iterator[Problem]:
    # The same question with another answer is no mistake: several people described each video.
    first: dict[tuple[str, str, str, str], Row] = {}
    for row in rows:
        key = (row.split, row.video_id, row.question.strip().lower(), row.answer.lower())
        earlier = first.setdefault(key, row)
        if earlier is not row:
            yield Problem(
                kind="duplicate_question",
                detail=f"{row.source}: row {row.number} repeats row {earlier.number}: "
                f"{row.question[:80]!r} about video {row.video_id}",
                split=row.split,
                video_id=row.video_id,
                path=row.source,
                row=row.number,
                question_id=row.question_id,
            )
