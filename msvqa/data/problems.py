"""What is wrong with annotations and file names, found without opening a video."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from msvqa.data.annotations import Annotations, Row
from msvqa.data.dataset import Dataset
from msvqa.data.leakage import Allowed, shared_videos
from msvqa.data.schema import PROBLEMS, Problem
from msvqa.data.video_files import VideoFile
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
        return annotation_problems(dataset, annotations, videos)
    except DataError as error:
        return [Problem(kind="invalid_source", detail=str(error))]


def annotation_problems(
    dataset: Dataset, annotations: Annotations, videos: Sequence[AnnotatedVideo]
) -> list[Problem]:
    """Return what is wrong with annotations that have been read and grouped.

    Raises:
        DataError: `data.shared_videos` names what is not there.
    """
    allowed = Allowed(frozenset(dataset.config.shared_videos))
    allowed.check({video.video_id for video in videos}, dataset.splits)
    return [
        *annotations.problems,
        *(problem for video in videos if (problem := _file_problem(video)) is not None),
        *_repeated_questions(annotations.rows),
        *shared_videos(videos, dataset.root, allowed),
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
    file, n = video.file, len(video.rows)
    about = f"video {video.video_id} of {video.split} ({n} question{'s' if n != 1 else ''})"
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
