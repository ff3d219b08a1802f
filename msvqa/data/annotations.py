"""Rows of annotation files, checked one by one; what is wrong is collected with its place."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msvqa.data.root import SourceFile
from msvqa.data.schema import Problem
from msvqa.data.text import question_text
from msvqa.errors import DataError, did_you_mean
from msvqa.text_files import parse_json, read_text

MAX_QUESTION_LENGTH = 10_000
MAX_PATH_BYTES = 4_096
MAX_NAME_BYTES = 255
MAX_SHOWN = 20


@dataclass(frozen=True)
class Row:
    """One question about one video, with the place it was read from."""

    split: str
    video_id: str
    question_id: int
    question: str
    answer: str
    type: str
    source: str
    """Name of the annotation file."""
    number: int
    """Number of the row in that file: elements of a JSON list from 0, rows of a table from 1."""


@dataclass
class Annotations:
    """The usable rows of all splits and the problems of the others."""

    rows: list[Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What users should know of how the files were read."""

    def add(self, row: Row) -> None:
        """Keep a row if its texts can be used, else its problem."""
        problem = _text_problem(row)
        if problem is None:
            self.rows.append(row)
        else:
            kind, words = problem
            self.refuse(kind, row.source, row.number, words, row)

    def refuse(
        self, kind: str, source: str, number: int, words: str, row: Row | None = None
    ) -> None:
        """Note what is wrong with a row."""
        counted = "row" if Path(source).suffix != ".json" else "element (from 0)"
        self.problems.append(
            Problem(
                kind=kind,
                detail=f"{source}: {counted} {number}: {words}",
                split=row.split if row else "",
                video_id=row.video_id if row else "",
                path=source,
                row=number,
                question_id=row.question_id if row else None,
            )
        )

    def refuse_repeated_ids(self) -> None:
        """Note every question id that was used before in the same split, and drop its row."""
        first: dict[tuple[str, int], Row] = {}
        for row in self.rows:
            earlier = first.setdefault((row.split, row.question_id), row)
            if earlier is not row:
                words = (
                    f"id {row.question_id} is also that of {earlier.source} row {earlier.number}"
                )
                self.refuse("duplicate_id", row.source, row.number, words, row)
        self.rows = list(first.values())


def read_elements(
    file: SourceFile,
    keys: Mapping[str, tuple[type, ...]],
    row_of: Callable[[int, dict[str, Any]], Row],
    annotations: Annotations,
) -> None:
    """Read a JSON list of objects into rows.

    Args:
        file: the file.
        keys: keys that each element must have, with the types allowed.
        row_of: makes a row of an element's number and content.
        annotations: where rows and problems go.

    Raises:
        DataError: the file is not a JSON list.
    """
    for number, element in enumerate(_read_list(file)):
        words = _key_problem(element, keys)
        if words is None:
            annotations.add(row_of(number, element))
        else:
            annotations.refuse("invalid_row", file.name, number, words)


def several(problems: Sequence[object]) -> str:
    """Return problems as lines for a message: the first ones and how many more there are."""
    lines = [f"  - {problem}" for problem in problems[:MAX_SHOWN]]
    if len(problems) > MAX_SHOWN:
        lines.append(f"  and {len(problems) - MAX_SHOWN} more")
    return "\n".join(lines)


def _read_list(file: SourceFile) -> list[Any]:
    try:
        content = parse_json(read_text(file.path, file))
    except ValueError as error:
        raise DataError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(content, list):
        raise DataError(f"{file}: a JSON list of questions is needed, found {_kind(content)}")
    return content


def _key_problem(element: Any, keys: Mapping[str, tuple[type, ...]]) -> str | None:
    if not isinstance(element, dict):
        return f"an object with the keys {', '.join(keys)} is needed, found {_kind(element)}"
    for key, types in keys.items():
        if key not in element:
            return f"key {key!r} is missing{did_you_mean(key, set(element) - set(keys))}"
        value = element[key]
        # `type` and not `isinstance`: true and false are not numbers.
        if type(value) not in types:
            wanted = " or ".join(_NAMES[kind] for kind in types)
            return f"key {key!r} must be {wanted}, found {_kind(value)}"
        if type(value) is int and not -(2**63) <= value < 2**63:
            return f"key {key!r}: the number does not fit into 64 bits"
    return None


def _text_problem(row: Row) -> tuple[str, str] | None:
    if not question_text(row.question).strip():
        return "empty_text", "the question is empty"
    if not row.answer.strip():
        return "empty_text", "the answer is empty"
    if not row.video_id.strip():
        return "empty_text", "the video is empty"
    if len(row.question) > MAX_QUESTION_LENGTH or len(row.answer) > MAX_QUESTION_LENGTH:
        return "invalid_row", f"a text is longer than {MAX_QUESTION_LENGTH} characters"
    try:
        f"{row.question}{row.answer}{row.type}{row.video_id}".encode()
    except UnicodeEncodeError:
        return "invalid_row", "a text is not valid Unicode"
    if words := unusable_path(row.video_id):
        return "invalid_row", f"{row.video_id[:50]!r} cannot be the path of a video: {words}"
    return None


def unusable_path(text: str) -> str:
    """Say why no file can have this path: only what file systems or terminals forbid.

    Spaces of all kinds, joined characters and marks of direction are parts of ordinary names.
    Control characters could command the terminal that shows the name, and break lists of names.
    """
    if found := next((mark for mark in text if unicodedata.category(mark) == "Cc"), None):
        return f"it has the control character {found!r}"
    longest = max(len(name.encode()) for name in re.split(r"[/\\]", text))
    if longest > MAX_NAME_BYTES:
        return f"a name in it has {longest} bytes, and file systems allow {MAX_NAME_BYTES}"
    if (size := len(text.encode())) > MAX_PATH_BYTES:
        return f"it has {size} bytes, and file systems allow {MAX_PATH_BYTES}"
    return ""


_NAMES: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def _kind(value: Any) -> str:
    shown = f" {str(value)[:40]!r}" if isinstance(value, (str, int, float)) else ""
    return f"{_NAMES[type(value)]}{shown}"
