"""CSV and TSV as spreadsheet programs write them: the first line shows which mark divides cells.

Where the comma is the decimal mark, they divide by semicolons; some begin a file with `sep=;`.
"""

import csv
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from msvqa.data.root import SourceFile
from msvqa.errors import DataError
from msvqa.text_files import MARK, read_lines

MARKS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "|"}
"""What may divide cells; of equals the first is taken."""
SHOWN = 120
_SEPARATOR_LINE = re.compile(r'"?sep=(?P<mark>[^\r\n])"?[\r\n]*', re.IGNORECASE)


@dataclass(frozen=True)
class Cells:
    """The cells of a file, row by row."""

    names: list[str]
    """Names of the columns, as in the file."""
    rows: Iterator[tuple[int, list[str]]]
    """Number, from 1, and cells of every row that is not blank."""
    found: str
    """The first line and how it was divided, for messages."""


def column_name(name: str) -> str:
    """Return a column's name as it is compared: case, marks and spaces around do not matter."""
    return name.replace(MARK, "").strip().lower()


def read_cells(file: SourceFile, wanted: Collection[str]) -> Cells:
    """Read a file whose first line names its columns.

    Args:
        file: the file.
        wanted: columns of which as many as possible are to be found in the first line.

    Raises:
        DataError: it is no text, or not CSV; also while rows are read.
    """
    lines = read_lines(file.path, file)
    wanted, marks = set(wanted), [*MARKS]
    if file.suffix == ".tsv":
        marks.insert(0, "\t")
    head, before = "", 0
    for number, line in enumerate(lines):
        head, before = line, number
        told = _SEPARATOR_LINE.fullmatch(head)
        if told:
            marks.insert(0, told["mark"])
        elif head.strip():
            break
    mark = max(marks, key=lambda mark: len(wanted & set(map(column_name, _first_row(head, mark)))))
    reader = csv.reader(chain([head], lines), delimiter=mark, strict=True, skipinitialspace=True)
    names = next(_checked(reader, file, before), [])
    tried = ", ".join(MARKS.get(mark, repr(mark)) for mark in dict.fromkeys(marks))
    found = f"{head.strip()[:SHOWN]!r} in its first line, divided by {tried}"
    rows = enumerate(_checked(reader, file, before), start=1)
    return Cells(names, ((number, cells) for number, cells in rows if cells), found)


def _first_row(line: str, mark: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=mark, skipinitialspace=True), [])
    except csv.Error:
        return []


def _checked(reader: Any, file: SourceFile, before: int) -> Iterator[list[str]]:
    """Yield the rows; what is wrong with one is told of the line where it begins."""
    while True:
        line = reader.line_num + before + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{file}: cannot be read near line {line}: {error} "
                "(is there a quotation mark without its counterpart?)"
            ) from None
        yield cells
