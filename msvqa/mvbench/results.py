"""The file of a result: a header and a line for each question, appended as it is answered.

A line is known by a key of all that its answer depends on, so that a run that was ended goes on
where it was. What stands in a file is enough to count again by any matcher, without model and data.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from msvqa.errors import DataError, RunError
from msvqa.files import json_text, lock
from msvqa.mvbench.prompts import LETTERS
from msvqa.mvbench.tasks import BY_NAME

FORMAT = 1
KEY_LETTERS = 20
MEDIA_ERROR = "media_error"
"""The reason of a question whose video gave no frames; it is wrong."""
MAX_LINE_BYTES = 4_000_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a result was made with: numbers of other settings cannot be compared."""

    settings: Mapping[str, Any]
    """Model, prompt, frames, control; all that stands beside a published number."""
    annotations: str
    """Fingerprint of the annotation files."""
    media: str
    """Where the media are: the same questions about other media have other answers."""
    expected: Mapping[str, int]
    """How many questions each task has, whether they can be asked or not."""

    def differences(self, other: "Header") -> list[str]:
        """Return what is not the same, for messages."""
        mine, theirs = (
            {**header.settings, "annotations": header.annotations, "media": header.media}
            for header in (self, other)
        )
        names = dict.fromkeys([*mine, *theirs])
        return [
            f"{name}: {mine.get(name)!r} and {theirs.get(name)!r}"
            for name in names
            if mine.get(name) != theirs.get(name)
        ]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One question with its answer."""

    key: str
    task: str
    index: int
    rotation: int
    """By how many places the options were moved; 0 but in circular evaluation."""
    video: str
    """The clip: its path below the data root, with its span."""
    question: str
    options: Sequence[str]
    """As they were shown."""
    gold: str
    """The right letter."""
    text: str = ""
    """What the model said, or nothing where letters were compared."""
    scored: str = ""
    """What is matched: with the bracket that the answer was begun with."""
    letter: str = ""
    """By the rule `robust`; empty where there is none."""
    reason: str = ""
    verdicts: Mapping[str, bool] = field(default_factory=dict)
    """Of every matcher."""
    logits: Mapping[str, float | None] | None = None
    """Of the letters, where they were compared."""
    repaired: bool = False
    """Whether the bounds of the clip had to be moved into it."""
    error: str = ""
    """Why there were no frames."""


@dataclass(frozen=True)
class Results:
    """What a file of results holds."""

    header: Header
    rows: Mapping[str, Row]
    """By their keys, in the order of the file."""
    torn: bool = False
    """Whether the last line was not written to its end."""


def key_of(header: Header, content: Mapping[str, Any]) -> str:
    """Return the key of a question: equal for equal settings, media and words."""
    parts = [header.settings, header.annotations, header.media, content]
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LETTERS]


def read_results(path: str | Path) -> Results:
    """Return what a file holds; a last line that was not written to its end is left out.

    Raises:
        DataError: there is no such file, or a line in it is none of a result.
    """
    results, _ = _read(Path(path))
    if results is None:
        raise DataError(f"{path}: no result of `msvqa mvbench run` is in this file")
    if results.torn:
        logger.warning("%s: the last line is not whole and is left out", path)
    return results


def joined(parts: Iterable[tuple[str, Results]]) -> Results:
    """Return the rows of several files of one run, each by the name of its file.

    Raises:
        DataError: they are of different settings, or answer a question in two ways.
    """
    header: Header | None = None
    rows: dict[str, Row] = {}
    for name, results in parts:
        if header is None:
            first, header = name, results.header
        if found := header.differences(results.header):
            raise DataError(f"{name} is no part of the same run as {first}: {'; '.join(found)}")
        for key, row in results.rows.items():
            if rows.setdefault(key, row) != row:
                place = f"{row.task} {row.index}"
                raise DataError(f"{name}: {place} has another answer than in another file")
    if header is None:
        raise DataError("no file of results was named")
    return Results(header, rows)


class ResultFile:
    """A file of results that is being written; one process at a time."""

    def __init__(self, file: IO[bytes], rows: dict[str, Row]) -> None:
        self._file, self.rows = file, rows

    def append(self, row: Row) -> None:
        """Write a row; it is on the disk when this returns."""
        _write(self._file, asdict(row))
        self.rows[row.key] = row


@contextmanager
def open_results(path: Path, header: Header) -> Iterator[ResultFile]:
    """Give the file for the block, with the rows that it has already.

    A last line that was not written to its end is taken out, and its question asked again.

    Raises:
        RunError: the file is of other settings, or another process writes it.
        DataError: the file is none of results.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            lock(file, wait=False)
        except BlockingIOError:
            raise RunError(f"{path} is being written by another process") from None
        results, whole = _read(path)
        if results is not None and (found := results.header.differences(header)):
            raise RunError(
                f"{path} holds answers of other settings ({'; '.join(found)}); name another file"
            )
        if whole < path.stat().st_size:
            logger.warning("%s: the last line was not written to its end and is done again", path)
            file.truncate(whole)
        if results is None:
            _write(file, {"mvbench": FORMAT, **asdict(header)})
        yield ResultFile(file, {} if results is None else dict(results.rows))


def _write(file: IO[bytes], content: Mapping[str, Any]) -> None:
    file.write(f"{json_text(content)}\n".encode())
    file.flush()
    os.fsync(file.fileno())


def _read(path: Path) -> tuple[Results | None, int]:
    """Return the content of a file, and how many of its bytes are whole lines."""
    if not path.is_file():
        raise DataError(f"no file {path}")
    header: Header | None = None
    rows: dict[str, Row] = {}
    whole = 0
    with path.open("rb") as file:
        for number, line in enumerate(_lines(file, path), start=1):
            if not line.endswith(b"\n"):
                break
            content = _parsed(line, f"{path}: line {number}")
            if header is None:
                header = _header(content, path)
            else:
                row = _row(content, f"{path}: line {number}")
                rows[row.key] = row
            whole += len(line)
    torn = whole < path.stat().st_size
    return (None if header is None else Results(header, rows, torn)), whole


def _lines(file: IO[bytes], path: Path) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE_BYTES):
        if len(line) == MAX_LINE_BYTES:
            raise DataError(f"{path}: a line is longer than {MAX_LINE_BYTES} bytes")
        yield line


def _parsed(line: bytes, place: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise DataError(f"{place} is no line of a result; remove it, and run again")
    return content


def _header(content: dict[str, Any], path: Path) -> Header:
    if content.pop("mvbench", None) != FORMAT:
        raise DataError(f"{path}: no result of `msvqa mvbench run` is in this file")
    try:
        header = Header(**content)
    except TypeError:
        header = None
    if header is None or not (
        isinstance(header.settings, dict)
        and isinstance(header.expected, dict)
        and all(type(count) is int for count in header.expected.values())
        and header.expected.keys() <= BY_NAME.keys()
    ):
        raise DataError(f"{path}: the first line is of another version of this program")
    return header


def _row(content: dict[str, Any], place: str) -> Row:
    try:
        row = Row(**content)
    except TypeError as error:
        raise DataError(f"{place}: {str(error).removeprefix('Row.__init__() ')}") from None
    if not _is_sound(row):
        raise DataError(f"{place}: texts, numbers and a right letter of the options are needed")
    return row


def _is_sound(row: Row) -> bool:
    """Whether what is counted has the types that it must have."""
    if not isinstance(row.options, list):
        return False
    texts = (row.key, row.task, row.gold, row.scored, row.video, row.reason, *row.options)
    numbers = (row.index, row.rotation)
    return (
        all(isinstance(text, str) for text in texts)
        and row.task in BY_NAME
        and all(type(number) is int for number in numbers)
        and row.gold in [*LETTERS[: len(row.options)]]
    )
