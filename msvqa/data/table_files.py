"""Tables of the user, row by row: CSV, TSV, JSONL and Parquet."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from msvqa.data.delimited import column_name, read_cells
from msvqa.data.root import SourceFile
from msvqa.errors import DataError, did_you_mean, one_of
from msvqa.text_files import parse_json, read_lines

NumberedRow = tuple[int, dict[str, Any] | str]
"""The number of a row from 1 with our columns, or with what is wrong with it."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are read; all others are ignored."""

    required: tuple[str, ...]
    optional: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Those that must be there and those that may."""
        return (*self.required, *self.optional)


def read_rows(file: SourceFile, columns: Columns) -> Iterator[NumberedRow]:
    """Yield the rows of a table.

    Raises:
        DataError: it is of another format, cannot be read, or lacks a column.
    """
    reader = READERS.get(file.suffix)
    if reader is None:
        raise DataError(f"{file}: cannot read {file.suffix!r}; a table is one of {one_of(READERS)}")
    return reader(file, columns)


def has_column(file: SourceFile, name: str) -> bool:
    """Whether a table has a column, as far as its first line or row says."""
    if file.suffix == ".parquet":
        try:
            names = pq.ParquetFile(file.path).schema_arrow.names
        except (pa.ArrowException, OSError):
            return False  # said where it is read
        return name in map(column_name, names)
    first = next((line for line in read_lines(file.path, file) if line.strip()), "")
    if file.suffix == ".jsonl":
        try:
            row = parse_json(first or "{}")
        except ValueError:
            return False
        return isinstance(row, dict) and name in map(column_name, row)
    return name in map(column_name, read_cells(file, [name]).names)


def _ours(file: SourceFile, names: list[str], columns: Columns, found: str = "") -> dict[str, str]:
    """Return our columns by their name in the file; case and spaces around do not matter."""
    ours = [(name, column_name(name)) for name in names if column_name(name) in columns.all]
    there = [known for _, known in ours]
    absent = [known for known in columns.required if known not in there]
    if absent:
        hints = "".join(did_you_mean(known, names) for known in absent)
        found = found or ", ".join(names) or "none"
        raise DataError(f"{file}: column {', '.join(absent)} missing{hints}; found {found}")
    if len(set(there)) < len(there):
        raise DataError(f"{file}: a column is there twice: {', '.join(name for name, _ in ours)}")
    return dict(ours)


def _read_csv(file: SourceFile, columns: Columns) -> Iterator[NumberedRow]:
    cells_of = read_cells(file, columns.required)
    names, ours = cells_of.names, _ours(file, cells_of.names, columns, cells_of.found)
    for number, cells in cells_of.rows:
        if len(cells) > len(names):
            yield number, f"{len(cells)} cells under {len(names)} column names"
        else:
            row = dict(zip(names, cells, strict=False))
            yield number, {ours[name]: row[name] for name in ours if name in row}


def _read_jsonl(file: SourceFile, columns: Columns) -> Iterator[NumberedRow]:
    for number, line in enumerate(read_lines(file.path, file), start=1):
        if not line.strip():
            continue
        try:
            values = parse_json(line)
        except ValueError as error:
            raise DataError(f"{file}: line {number} is not valid JSON: {error}") from None
        if not isinstance(values, dict):
            raise DataError(f"{file}: line {number} is not a JSON object")
        ours = [(column_name(name), value) for name, value in values.items()]
        named = {name: value for name, value in ours if name in columns.all}
        if len(named) < sum(name in named for name, _ in ours):
            yield number, f"a column is there twice: {', '.join(values)}"
        else:
            yield number, named


def _read_parquet(file: SourceFile, columns: Columns) -> Iterator[NumberedRow]:
    try:
        table = pq.ParquetFile(file.path)
        ours = _ours(file, table.schema_arrow.names, columns)
        number = 0
        for batch in table.iter_batches(columns=list(ours)):
            for row in batch.to_pylist():
                number += 1
                yield number, {ours[name]: value for name, value in row.items()}
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} is not a Parquet file: {error}") from None


READERS = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), _read_csv),
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
