"""Columns of the tables that `prepare` and `doctor` write, and the record of a problem."""

from dataclasses import dataclass

import pyarrow as pa

PROBLEMS = pa.schema(
    [
        ("kind", pa.string()),
        ("split", pa.string()),
        ("video_id", pa.string()),
        ("path", pa.string()),
        ("row", pa.int64()),
        ("question_id", pa.int64()),
        ("detail", pa.string()),
    ]
)
PREDICTIONS = pa.schema(
    [
        ("question_id", pa.int64()),
        ("video_id", pa.string()),
        ("question", pa.string()),
        ("type", pa.string()),
        ("answer", pa.string()),
        ("predicted", pa.string()),
        ("correct", pa.bool_()),
        ("top", pa.list_(pa.string())),  # best answers, best first
        ("probability", pa.list_(pa.float32())),  # of each of `top`
    ]
)

PROBLEM_KINDS: dict[str, str] = {
    "invalid_source": "an annotation file that cannot be read",
    "invalid_row": "a row with a missing key or a value of the wrong type",
    "dropped_row": "a row of a conversation that cannot be used, and is left out",
    "empty_text": "a row whose question or answer is empty",
    "duplicate_id": "a question id, or a video id of the mapping, that is used twice",
    "duplicate_question": "the same question with the same answer about the same video",
    "unknown_video": "a video id that is not in the mapping of ids to files",
    "missing_video": "a video whose file is not there",
    "outside_root": "a path that leaves the data root",
    "two_files": "one video with more than one file",
    "shared_file": "one file, or equal ones, of more than one video id",
    "damaged_record": "a record that cannot be read",
    "duplicate_record": "a record with an id that another one has as well",
    "two_splits": "a video that is in more than one split",
    "divided_pair": "a pair of videos of two splits, which is left out",
    "duplicate_options": "a question with two options of the same text",
    "odd_bound": "a span of a video that ends before it begins, or begins before the video",
    "broken_frames": "a folder of frames whose names are not the numbers from 1 on",
    "unknown_shared": "a name that data.shared_videos allows, and that means nothing",
    "allowed_splits": "a video in more than one split, which data.shared_videos allows",
}
"""What is wrong with annotations, by kind; outcomes of decoding are listed in `data/readers.py`."""

REFUSED_KINDS = (
    *("invalid_source", "invalid_row", "empty_text", "duplicate_id"),
    *("outside_root", "two_splits", "unknown_shared"),
)
"""Problems that `prepare` never goes on with."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with a data set, at a named place."""

    kind: str
    detail: str
    split: str = ""
    video_id: str = ""
    path: str = ""
    """File that the problem is in, or that is absent, relative to the data root."""
    row: int | None = None
    """Number of the row in the file of annotations, as its kind counts: elements from 0, lines
    from 1."""
    question_id: int | None = None

    def __str__(self) -> str:
        return self.detail
