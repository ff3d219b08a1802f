"""What a table of the user is of: questions, captions, titled videos or pairs, by its columns."""

from msvqa.data.root import SourceFile
from msvqa.data.table_files import Columns, has_column

QUESTIONS = Columns(("video", "question", "answer"), ("split", "type"))
CAPTIONS = Columns(("video", "caption"), ("split", "start", "end"))
PAIRS = Columns(("video_a", "video_b", "similarity"), ("split",))
TITLES = Columns(("video", "title"), ("tags", "split"))

SHAPES = {
    "questions": ("question",),
    "captions": ("caption",),
    "pairs": PAIRS.required,
    "titles": ("title",),
}
"""Shapes by columns of which each tells one; of several the first counts."""


def shape_of(file: SourceFile) -> str:
    """Return the shape of a table; of one without any of these columns, `questions`.

    Raises:
        DataError: it is no table that can be read.
    """
    there = (
        shape for shape, names in SHAPES.items() if any(has_column(file, name) for name in names)
    )
    return next(there, "questions")
