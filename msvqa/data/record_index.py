"""The index of a file of records of videos: what every record says, but for its frames.

To make it a file is read to its end and every checksum compared. It is kept beside the tables of a
prepared folder, so that frames of a million videos are not read again to learn their titles.

Legend: n records of a file.
"""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from msvqa.data.records import Features, Record, RecordError, Value, parse_example, read_records
from msvqa.errors import DataError
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
CHECKSUM_BYTES = 4
ROWS_AT_ONCE = 10_000


def index_of(path: Path, cache: Path | None = None) -> pa.Table:
    """Return the n rows of a file's records, damaged ones too; columns as in `SCHEMA`.

    Args:
        path: the file.
        cache: folder that indices are kept in; nothing is kept where it is not there.

    Raises:
        DataError: the file cannot be read.
    """
    stat = path.stat()
    key = {"format": FORMAT, "size": str(stat.st_size), "time": str(stat.st_mtime_ns)}
    name = f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.parquet"
    kept = cache / name if cache is not None else None
    if kept is not None and kept.is_file():
        table = _kept(kept, key)
        if table is not None:
            return table
    try:
        table = _read(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    table = table.replace_schema_metadata(key)
    if kept is not None and kept.parent.parent.is_dir():
        kept.parent.mkdir(exist_ok=True)
        with written_aside(kept) as aside:
            pq.write_table(table, aside)
    return table


def _kept(file: Path, key: dict[str, str]) -> pa.Table | None:
    """Return the table of an earlier time; None where it is of another file, or damaged."""
    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError):
        return None
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    same = metadata == key and table.schema.equals(SCHEMA)
    return table if same else None


def _read(path: Path) -> pa.Table:
    batches, rows = [], []
    with path.open("rb") as file:
        for record in read_records(path):
            file.seek(max(record.end - CHECKSUM_BYTES, 0))
            rows.append(_row(record, int.from_bytes(file.read(CHECKSUM_BYTES), "little")))
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
