"""Containers: how many bytes a file should have by its own structure, to tell one that was cut off.

Only the outermost parts are looked at, a few bytes of each; a demuxer says nothing where a file
ends between two packets. Sizes that are not given, as in live recordings, tell nothing.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_PARTS = 100_000
"""Outermost parts that are looked at."""
LENGTH_ERROR = 8
"""Bytes by which lengths may be too large: some programs count the header of a part as well."""
UNKNOWN_LENGTH = 0xFFFFFFFF
MATROSKA = b"\x1a\x45\xdf\xa3"
_SEGMENT = 0x18538067
_BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"uuid", b"sidx", b"styp")
"""Outermost boxes of MP4 and MOV files."""


def describe_cut(path: Path) -> str:
    """Say how a file ends before its container does; empty where it does not, or nobody knows."""
    with path.open("rb") as file:
        size = path.stat().st_size
        head = file.read(12)
        if head[:4] == b"RIFF":
            return _shorter(size, _riff_end(file, size))
        if head[4:8] in _BOXES:
            return _shorter(size, max((end for _, end in _boxes(file, size)), default=0))
        if head[:4] == MATROSKA:
            return _shorter(size, _matroska_end(file))
        if head[:4] == b"GIF8" and _gif_is_cut(file, size):
            return f"it ends after {size:,} bytes inside a picture"
    return ""


def lacks_index(path: Path) -> bool:
    """Whether a file is an MP4 or MOV without the box that says where its frames are."""
    with path.open("rb") as file:
        kinds = [kind for kind, _ in _boxes(file, path.stat().st_size)]
    return bool(kinds) and not {b"moov", b"moof"} & set(kinds)


def _shorter(size: int, end: int) -> str:
    return f"it ends after {size:,} of at least {end:,} bytes" if size + LENGTH_ERROR < end else ""


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """Yield kind and end of every outermost box up to the first that is not known."""
    position = 0
    for _ in range(MAX_PARTS):
        file.seek(position)
        header = file.read(16)
        kind, length = header[4:8], int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:], "big")
        if kind not in _BOXES or 0 < length < 8:
            return
        # Without a length a box takes the rest of the file.
        position = position + length if length else size
        yield kind, position
        if position >= size:
            return


def _riff_end(file: BinaryIO, size: int) -> int:
    """Return where the list of an AVI that holds the frames should end, or a whole WebP; else 0."""
    position = 0
    for _ in range(MAX_PARTS):
        file.seek(position)
        header = file.read(12)
        name, kind = header[:4], header[8:]
        length = int.from_bytes(header[4:8], "little")
        end = position + 8 + length + length % 2
        if length == UNKNOWN_LENGTH or not name.strip().isalnum():
            return 0
        if kind == b"WEBP" or (kind == b"movi" and end > size):
            return end
        # The parts of an AVI are one level down; large files have several of these.
        position = position + 12 if name == b"RIFF" else end
    return 0


def _matroska_end(file: BinaryIO) -> int:
    """Return where the segment should end; 0 where it does not say."""
    file.seek(0)
    head = file.read(4096)
    length, position = _variable_length(head, len(MATROSKA))
    start = position + length
    if int.from_bytes(head[start : start + 4], "big") != _SEGMENT:
        return 0
    length, position = _variable_length(head, start + 4)
    return position + length if length else 0


def _variable_length(data: bytes, position: int) -> tuple[int, int]:
    """Return a number of one to eight bytes, 0 where it says "unknown", and where it ends."""
    first = data[position] if position < len(data) else 0
    width = 9 - first.bit_length()
    value = int.from_bytes(data[position : position + width], "big")
    limit = 1 << 7 * width
    value &= limit - 1
    return (0 if value == limit - 1 else value), position + width


def _gif_is_cut(file: BinaryIO, size: int) -> bool:
    """Whether a GIF ends inside a picture. Many lack the mark of their end and are whole."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position = 13 + _colours(data[10]) if size > 10 else size + 1
        while position < size and data[position] in b"!,":
            if data[position] == ord(","):
                position += 11 + _colours(data[min(position + 9, size - 1)])
            else:
                position += 2
            while position < size and data[position]:
                position += data[position] + 1
            # The empty block that ends the others.
            position += 1
    return position > size


def _colours(flags: int) -> int:
    """Return the bytes of a table of colours."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
