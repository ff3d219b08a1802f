"""The index of a file of records of videos: what every record says, but for its frames.

To make it a file is read to its end and every checksum compared, several files at once. It is kept
beside the prepared folder, so that frames of a million videos are not read again to learn their
titles.

Legend: n records of a file.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from msvqa.data.isolation import Isolated
from msvqa.data.records import (
    Features,
    Record,
    RecordError,
    Value,
    parse_example,
    read_records,
    stored_checksum,
)
from msvqa.errors import DataError, VideoError
from msvqa.files import written_aside

SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # empty where the record is damaged
        ("title", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("start", pa.int64()),  # bytes of the file
        ("end", pa.int64()),
        ("checksum", pa.int64()),  # of the content, as the file has it
        ("error", pa.string()),  # empty where it can be used
    ]
)
FORMAT = "1"
MAX_TITLE_LENGTH = 10_000
ROWS_AT_ONCE = 10_000
WORTH_PROCESSES_BYTES = 200_000_000
"""Files that are smaller in all are read by this process: others would take longer to start."""
LIMIT_S = 7 * 24 * 3600.0
"""Longest time for one file, which nobody knows the size of."""


def indices_of(files: Mapping[str, Path], cache: Path) -> dict[str, pa.Table]:
    """Return `index_of` for each of several files.

    Raises:
        DataError: one of them cannot be read.
    """
    unknown = [path for path in files.values() if not _is_kept(path, cache)]
    if len(unknown) > 1 and sum(map(_size, unknown)) >= WORTH_PROCESSES_BYTES:
        _read_at_once(unknown, cache)
    return {name: index_of(path, cache) for name, path in files.items()}


def _read_at_once(paths: Sequence[Path], cache: Path) -> None:
    """Make indices in processes of their own, one for each CPU; what one cannot do is left."""
    largest_first = sorted(paths, key=_size, reverse=True)

    def read(path: Path) -> None:
        with Isolated(LIMIT_S, (__name__,)) as process, suppress(VideoError, DataError):
            process.call(keep_index, path, cache)

    with ThreadPoolExecutor(min(len(paths), len(os.sched_getaffinity(0)))) as pool:
        list(pool.map(read, largest_first))


def keep_index(path: Path, cache: Path) -> None:
    """Make the index of a file, to be found by others.

    Raises:
        DataError: the file cannot be read.
    """
    index_of(path, cache)


def index_of(path: Path, cache: Path | None = None) -> pa.Table:
    """Return the n rows of a file's records, damaged ones too; columns as in `SCHEMA`.

    Args:
        path: the file.
        cache: folder that indices are kept in.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        key = _key(path)
        kept = None if cache is None else _place(path, cache)
        if kept is not None and (table := _kept(kept, key)) is not None:
            return table
        table = _read(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    table = table.replace_schema_metadata(key)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(kept) as aside:
            pq.write_table(table, aside)
    return table


def _key(path: Path) -> dict[str, str]:
    """Return what an index says of the file that it is of."""
    stat = path.stat()
    return {"format": FORMAT, "size": str(stat.st_size), "time": str(stat.st_mtime_ns)}


def _place(path: Path, cache: Path) -> Path:
    return cache / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.parquet"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _is_kept(path: Path, cache: Path) -> bool:
    with suppress(pa.ArrowException, OSError):
        return _metadata(pq.read_schema(_place(path, cache))) == _key(path)
    return False


def _kept(file: Path, key: dict[str, str]) -> pa.Table | None:
    """Return the table of an earlier time; None where it is of another file, or damaged."""
    if not file.is_file():
        return None
    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError):
        return None
    same = _metadata(table.schema) == key and table.schema.equals(SCHEMA)
    return table if same else None


def _metadata(schema: pa.Schema) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}


def _read(path: Path) -> pa.Table:
    batches, rows = [], []
    with path.open("rb") as file:
        for record in read_records(path):
            rows.append(_row(record, stored_checksum(file, record.end)))
            if len(rows) == ROWS_AT_ONCE:
                batches.append(pa.Table.from_pylist(rows, schema=SCHEMA))
                rows = []
    batches.append(pa.Table.from_pylist(rows, schema=SCHEMA))
    return pa.concat_tables(batches).combine_chunks()


def _row(record: Record, checksum: int) -> dict[str, object]:
    row = {"start": record.start, "end": record.end, "checksum": checksum, "error": record.error}
    empty = {"id": "", "title": "", "tags": []}
    if record.error:
        return {**empty, **row}
    try:
        features = parse_example(record.content)
        return {
            "id": _text(features, "id"),
            "title": _text(features, "title"),
            "tags": [str(tag) for tag in _numbers(features, "tag_id")],
            **row,
        }
    except RecordError as error:
        return {**empty, **row, "error": str(error)}


def _text(features: Features, name: str) -> str:
    values = features.get(name) or (b"",)
    if len(values) > 1:
        raise RecordError(f"{name!r} has {len(values)} values, one is needed")
    value = values[0]
    if not isinstance(value, bytes):
        raise RecordError(f"{name!r} is a number, a text is needed")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise RecordError(f"{name!r} is not UTF-8") from None
    if not text and name == "id":
        raise RecordError(f"it is of another kind: no 'id', but {', '.join(features) or 'nothing'}")
    if len(text) > MAX_TITLE_LENGTH:
        raise RecordError(f"{name!r} is longer than {MAX_TITLE_LENGTH} characters")
    return text


def _numbers(features: Features, name: str) -> list[Value]:
    values = list(features.get(name, ()))
    if any(not isinstance(value, int) for value in values):
        raise RecordError(f"{name!r} must hold whole numbers")
    return values
