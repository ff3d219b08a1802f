"""What is wrong with annotations and file names, found without opening a video."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from msvqa.data.annotations import Annotations, Row
from msvqa.data.dataset import Dataset, VideoFile
from msvqa.data.schema import PROBLEMS, Problem
from msvqa.errors import DataError


@dataclass(frozen=True)
class AnnotatedVideo:
    """A video of one split with its questions."""

    split: str
    video_id: str
    file: VideoFile
    rows: list[Row]


def find_annotation_problems(dataset: Dataset) -> list[Problem]:
    """Return everything that is wrong with the annotations and the files they name."""
    try:
        annotations = dataset.read()
        videos = group_by_video(dataset, annotations.rows)
    except DataError as error:
        return [Problem(kind="invalid_source", detail=str(error))]
    return annotation_problems(annotations, videos)


def annotation_problems(
    annotations: Annotations, videos: Sequence[AnnotatedVideo]
) -> list[Problem]:
    """Return what is wrong with annotations that have been read and grouped."""
    return [
        *annotations.problems,
        *(problem for video in videos if (problem := _file_problem(video)) is not None),
        *_repeated_questions(annotations.rows),
        *_shared_videos(videos),
    ]


def group_by_video(dataset: Dataset, rows: Iterable[Row]) -> list[AnnotatedVideo]:
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
    pq.write_table(pa.Table.from_pylist(rows, schema=PROBLEMS), path)


def _file_problem(video: AnnotatedVideo) -> Problem | None:
    file, n = video.file, len(video.rows)
    about = f"video {video.video_id} of {video.split} ({n} question{'s' if n != 1 else ''})"
    if not file.is_known:
        kind, detail = "unknown_video", f"{about}: {file.expected}"
    elif file.leaves_root:
        kind = "outside_root"
        detail = f"{about}: {file.expected} leaves the data root; copy the file into the root"
    elif not file.path:
        kind, detail = "missing_video", f"{about}: no file {file.expected}"
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
        row=video.rows[0].number,
        question_id=video.rows[0].question_id,
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


def _shared_videos(videos: Sequence[AnnotatedVideo]) -> Iterator[Problem]:
    """Find videos in two splits, by id and by file, and files with two ids."""
    splits: dict[str, list[str]] = defaultdict(list)
    users: dict[str, list[AnnotatedVideo]] = defaultdict(list)
    for video in videos:
        splits[video.video_id].append(video.split)
        if video.file.path:
            users[video.file.path].append(video)
    for video_id, found in splits.items():
        if len(found) > 1:
            detail = f"video {video_id} is in {' and '.join(found)}; a test on it proves nothing"
            yield Problem(kind="two_splits", detail=detail, split=found[1], video_id=video_id)
    for path, sharing in users.items():
        ids = list(dict.fromkeys(video.video_id for video in sharing))
        if len(ids) > 1:
            detail = f"{path} is the file of the videos {', '.join(ids)}"
            yield Problem(kind="shared_file", detail=detail, video_id=ids[1], path=path)
