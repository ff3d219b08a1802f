"""Files of records, as TensorFlow writes them (`.tfrecords`), read without it.

A record is its length (8 bytes, lowest first), a checksum of that (4), the content, and a checksum
of the content (4). The checksums are CRC-32C, rotated and shifted so that a checksum of data that
holds checksums stays sound. The content is a `tf.train.Example`: a map from names to lists of
bytes, of numbers or of whole numbers. Published format: tensorflow/core/lib/io/record_writer.h and
tensorflow/core/example/example.proto.

What is damaged is named with its place in the file. After a damaged content the next record is
found all the same; after a damaged length nobody knows where it is.
"""

import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

SUFFIXES = (".tfrecords", ".tfrecord")
MAX_RECORD_BYTES = 64 * 1024**2
"""A longer record is refused: its length is all that says how much memory it would take."""
READ_AHEAD_BYTES = 256 * 1024
HEADER, FOOTER = struct.Struct("<QI"), struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8
_FIELD = descriptor_pb2.FieldDescriptorProto

Value = bytes | int | float
Features = Mapping[str, Sequence[Value]]
"""The lists of an example by their names."""


class RecordError(Exception):
    """A record that cannot be used; says why."""


@dataclass(frozen=True)
class Record:
    """One record of a file, or what is left of one."""

    number: int
    """From 0."""
    start: int
    """Byte of the file at which its length begins."""
    end: int
    """Byte after its last checksum."""
    content: bytes
    error: str = ""
    """Why the content is of no use; empty where it is sound."""


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file, the damaged ones too, each with its place.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb", buffering=1024**2) as file:
        size, start, number = path.stat().st_size, 0, 0
        while start < size:
            found = _read(file, number, start, size)
            yield found
            start, number = found.end, number + 1


def read_record(file: BinaryIO, start: int, end: int) -> bytes:
    """Return the content of the record that lies in a range of bytes of a file.

    Raises:
        RecordError: there is none, or it is damaged.
        OSError: the file cannot be read.
    """
    size = os.fstat(file.fileno()).st_size
    if not 0 <= start < end <= size:
        raise RecordError(f"bytes {start} to {end} are not in the file, which has {size}")
    file.seek(start)
    found = _read(file, 0, start, size)
    if found.error:
        raise RecordError(found.error)
    if found.end != end:
        raise RecordError(f"the record at byte {start} ends at byte {found.end}, not at {end}")
    return found.content


class LastFile:
    """Opens files for reading, and keeps the last one open: records mostly come file by file."""

    def __init__(self) -> None:
        self._file: BinaryIO | None = None
        self._key: tuple[int, ...] = ()

    def open(self, path: Path) -> BinaryIO:
        """Return an open file; the last one again, unless another lies at its path by now.

        Raises:
            OSError: it cannot be opened.
        """
        found = path.stat()
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if self._file is None or key != self._key:
            self.close()
            self._file, self._key = path.open("rb", buffering=READ_AHEAD_BYTES), key
        return self._file

    def close(self) -> None:
        """Close it."""
        if self._file is not None:
            self._file.close()
        self._file = None


def parse_example(content: bytes) -> Features:
    """Return the lists of an example by their names.

    Raises:
        RecordError: the content is no `tf.train.Example`.
    """
    example = _example_class()()
    try:
        example.ParseFromString(content)
    except message.DecodeError:
        raise RecordError("it is no tf.train.Example") from None
    # `value` itself and not a numpy array: arrays of bytes drop the zeros at the end.
    return {
        entry.key: getattr(entry.value, kind).value
        for entry in example.features.feature
        if (kind := entry.value.WhichOneof("kind")) is not None
    }


def as_example(features: Features) -> bytes:
    """Return the content of a record; the lists are written in the order of their names."""
    example = _example_class()()
    for name in sorted(features):
        entry = example.features.feature.add(key=name)
        values = list(features[name])
        kind = "bytes_list" if all(isinstance(value, bytes) for value in values) else "int64_list"
        if any(isinstance(value, float) for value in values):
            kind = "float_list"
        getattr(entry.value, kind).value.extend(values)
    content: bytes = example.SerializeToString(deterministic=True)
    return content


def write_records(path: Path, contents: Iterable[bytes]) -> None:
    """Write a file of records with their checksums."""
    with path.open("wb") as file:
        for content in contents:
            length = struct.pack("<Q", len(content))
            file.write(length + FOOTER.pack(checksum(length)))
            file.write(content + FOOTER.pack(checksum(content)))


def stored_checksum(file: BinaryIO, end: int) -> int:
    """Return the checksum of a content as the file has it, of the record that ends at a byte."""
    file.seek(max(end - FOOTER.size, 0))
    return int.from_bytes(file.read(FOOTER.size), "little")


def checksum(data: bytes) -> int:
    """Return the masked CRC-32C of bytes."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _read(file: BinaryIO, number: int, start: int, size: int) -> Record:
    header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        return Record(number, start, size, b"", f"cut short: {len(header)} bytes are left")
    length, expected = HEADER.unpack(header)
    if checksum(header[:8]) != expected:
        error = f"its length is damaged: the {size - start} bytes from here on cannot be told apart"
        return Record(number, start, size, b"", error)
    end = start + HEADER.size + length + FOOTER.size
    if end > size:
        error = f"cut short: it has {length} bytes, {size - start - HEADER.size} are left"
        return Record(number, start, size, b"", error)
    if length > MAX_RECORD_BYTES:
        file.seek(end)
        error = f"it has {length} bytes, at most {MAX_RECORD_BYTES} are read"
        return Record(number, start, end, b"", error)
    content = file.read(length)
    (expected,) = FOOTER.unpack(file.read(FOOTER.size))
    if checksum(content) != expected:
        return Record(number, start, end, b"", "its content does not fit its checksum")
    return Record(number, start, end, content)


@cache
def _example_class() -> Any:
    """Return the class of `tf.train.Example` messages.

    Described here in a few lines: the published package of it is TensorFlow. The map of features is
    written as what it is on the wire, a list of entries.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name="msvqa/example.proto", package="msvqa.records", syntax="proto3"
    )
    lists = {"bytes_list": _FIELD.TYPE_BYTES, "float_list": _FIELD.TYPE_FLOAT}
    lists["int64_list"] = _FIELD.TYPE_INT64
    for name, kind in lists.items():
        field = file.message_type.add(name=name).field.add(name="value", number=1, type=kind)
        field.label = _FIELD.LABEL_REPEATED
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(lists, start=1):
        field = _message_field(feature, name, number, name)
        field.oneof_index = 0
    entry = file.message_type.add(name="Entry")
    entry.field.add(name="key", number=1, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
    _message_field(entry, "value", 2, "Feature")
    features = file.message_type.add(name="Features")
    _message_field(features, "feature", 1, "Entry").label = _FIELD.LABEL_REPEATED
    _message_field(file.message_type.add(name="Example"), "features", 1, "Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("msvqa.records.Example"))


def _message_field(owner: Any, name: str, number: int, kind: str) -> Any:
    field = owner.field.add(
        name=name, number=number, type=_FIELD.TYPE_MESSAGE, label=_FIELD.LABEL_OPTIONAL
    )
    field.type_name = f".msvqa.records.{kind}"
    return field
