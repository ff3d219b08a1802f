"""Splits of questions without a data set."""

from collections.abc import Sequence

import pyarrow as pa

from msvqa.data.examples.questions import Questions
from msvqa.data.media import COLUMNS, Media
from msvqa.data.split import Split

Row = tuple[str, str, str, int]
"""Video, question, kind and class of the answer."""


def split_of(name: str, rows: Sequence[Row], expected: int | None = None) -> Split:
    """Return a split of questions; an answer's text is the number of its class."""
    videos = list(dict.fromkeys(video for video, _, _, _ in rows))
    media = [{"id": video, "path": "", "kind": "video"} for video in videos]
    examples = [
        {
            "media": [videos.index(video)], "question_id": number, "question": question,
            "answer": str(answer), "type": kind, "tokens": [2], "answer_id": answer,
        }
        for number, (video, question, kind, answer) in enumerate(rows)
    ]  # fmt: skip
    return Split(
        name=name,
        media=Media(pa.Table.from_pylist(media, schema=COLUMNS), "/data"),
        examples=Questions(pa.Table.from_pylist(examples, schema=Questions.schema())),
        expected=len(rows) if expected is None else expected,
    )
