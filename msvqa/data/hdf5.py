"""HDF5 files that other programs wrote: one data set with a row per video, and the videos' numbers.

Such a file is looked at before anything of it is believed. Links that leave it, and data sets whose
content lies in other files, are refused: a file of features must not make us read others.
"""

import importlib
import itertools
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np

from msvqa.content import START_BYTES, stand_in
from msvqa.errors import DataError, StorageError, VideoError

IDS = "ids"
REFUSED = (OSError, RuntimeError, ValueError, TypeError, LookupError, MemoryError)
"""What h5py raises for files that are damaged or strange."""
NAMES_SHOWN = 5
BLOCK_BYTES = 64 * 1024**2
"""Read at a time where whole files are looked at."""
MAX_ROW_BYTES = 1024**3
MAX_ROWS = 10_000_000
MAX_ID_BYTES = 1000
MAX_ID_DIGITS = 18


class Rows:
    """The rows of one data set, found by the numbers of their videos."""

    def __init__(self, file: str, names: Sequence[str]) -> None:
        """Open the first of `names` that the file has.

        Raises:
            DataError: no HDF5 file, or one of another layout: says what was found and what is read.
            StorageError: the storage that has the file fails.
        """
        with _said(file), ExitStack() as closing:
            opened = closing.enter_context(_open(file))
            name = next((name for name in names if _link(opened, name)), None)
            if name is None or _link(opened, IDS) is None:
                raise DataError(
                    f"{file}: wants {' or '.join(names)} and {IDS}, it has {_content_of(opened)}; "
                    f"read are one data set with a row for each video, and {IDS}, their numbers"
                )
            self.name = f"{file}: {name}"
            self._data = _dataset(opened, name, self.name)
            self.shape: tuple[int, ...] = self._data.shape[1:]
            ids = _read_ids(opened, f"{file}: {IDS}", len(self._data))
            closing.pop_all()  # It stays open to be read.
        self._row = {video: row for row, video in enumerate(ids)}

    def __contains__(self, video_id: str) -> bool:
        return video_id in self._row

    @property
    def video_ids(self) -> list[str]:
        """The videos that have a row."""
        return list(self._row)

    def place(self, video_id: str) -> str:
        """Return where the row of a video is, for messages."""
        return f"{self.name}, row {self._row[video_id]}"

    def read(self, video_id: str) -> np.ndarray:
        """Return the row of a video.

        Raises:
            VideoError: it cannot be read.
            StorageError: the storage that has the file fails.
        """
        row = self._row[video_id]
        return self._read(row, row + 1)[0]

    def blocks(self, video_ids: Collection[str]) -> Iterator[tuple[list[str], np.ndarray | None]]:
        """Yield videos and their rows in the order of the file; None for one that is unreadable.

        Whole chunks are read, each once, as far as memory allows.
        """
        wanted = set(video_ids)
        videos = self.video_ids
        size = self._rows_per_block()
        for start in range(0, len(videos), size):
            part = videos[start : start + size]
            if wanted.isdisjoint(part):
                continue
            try:
                values = self._read(start, start + len(part))
            except VideoError:
                yield from self._one_by_one([video for video in part if video in wanted])
                continue
            chosen = [row for row, video in enumerate(part) if video in wanted]
            yield [part[row] for row in chosen], values[chosen]

    def _one_by_one(
        self, video_ids: Sequence[str]
    ) -> Iterator[tuple[list[str], np.ndarray | None]]:
        for video in video_ids:
            try:
                yield [video], self.read(video)[None]
            except VideoError:
                yield [video], None

    def _read(self, start: int, stop: int) -> np.ndarray:
        rows = f"row {start}" if stop == start + 1 else f"rows {start} to {stop - 1}"
        try:
            with _said(f"{self.name}, {rows}"):
                values: np.ndarray = self._data[start:stop]
        except DataError as error:
            raise VideoError("unreadable", str(error)) from None
        return values

    def _rows_per_block(self) -> int:
        row_bytes = max(1, int(np.prod(self.shape)) * self._data.dtype.itemsize)
        chunk = self._data.chunks[0] if self._data.chunks else 1
        whole_chunks = BLOCK_BYTES // (row_bytes * chunk)
        # A chunk may have more rows than memory has room for, and is then read in parts.
        return int(chunk * whole_chunks or max(1, BLOCK_BYTES // row_bytes))


@contextmanager
def _said(place: str) -> Iterator[None]:
    """Turn what h5py raises into one sentence."""
    try:
        yield
    except REFUSED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError(f"{place} cannot be read: {os.strerror(error.errno)}") from None
        raise DataError(f"{place} cannot be read: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Return what h5py says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _open(file: str) -> h5py.File:
    try:
        return h5py.File(file, "r")
    except FileNotFoundError:
        raise DataError(f"{file}: there is no such file") from None
    except IsADirectoryError:
        raise DataError(f"{file} cannot be read: it is a folder") from None
    except PermissionError:
        raise DataError(f"{file} cannot be read: permission denied") from None
    except OSError as error:
        if error.errno is not None:
            raise
        if "truncated" in str(error):
            found = f"there are {Path(file).stat().st_size} bytes of it ({_reason(error)})"
            raise DataError(f"{file} is cut short: {found}; copy it again") from None
        with Path(file).open("rb") as stream:
            instead = stand_in(stream.read(START_BYTES))
        raise DataError(
            f"{file} {instead}" if instead else f"{file}: no HDF5 file ({_reason(error)})"
        ) from None


def _content_of(file: h5py.File) -> str:
    """Return what a file holds, for a message."""
    names = list(itertools.islice(file, NAMES_SHOWN))
    shown = [_described(file, name) for name in names]
    more = [f"and {len(file) - NAMES_SHOWN} more"] if len(file) > NAMES_SHOWN else []
    return ", ".join([*shown, *more]) or "nothing"


def _link(file: h5py.File, name: str) -> h5py.HardLink | h5py.SoftLink | h5py.ExternalLink | None:
    """Return what stands for a name, without following it, as `in` would."""
    return file.get(name, getlink=True)


def _described(file: h5py.File, name: str) -> str:
    if not isinstance(_link(file, name), h5py.HardLink):
        return f"{name} (a link)"
    found = file[name]
    if isinstance(found, h5py.Dataset):
        return f"{name} {found.shape} {found.dtype}"
    return f"{name} (a {type(found).__name__.lower()})"


def _dataset(file: h5py.File, name: str, place: str) -> h5py.Dataset:
    """Return a data set of numbers that lies wholly in this file, with rows that can be read."""
    data = _own(file, name, place)
    if data.shape is None or not data.shape or data.dtype.kind not in "fiu":
        raise DataError(
            f"{place} is {data.shape or 'a single value'} of type {data.dtype}, wants numbers with "
            "a row for each video"
        )
    row_bytes = int(np.prod(data.shape[1:], dtype=object)) * data.dtype.itemsize
    if row_bytes > MAX_ROW_BYTES or len(data) > MAX_ROWS:
        raise DataError(
            f"{place} has {len(data)} rows of {row_bytes} bytes; read are at most {MAX_ROWS} rows "
            f"of {MAX_ROW_BYTES} bytes"
        )
    return data


def _own(file: h5py.File, name: str, place: str) -> h5py.Dataset:
    """Return a data set whose content is in this file and can be unpacked here."""
    if not isinstance(_link(file, name), h5py.HardLink):
        raise DataError(
            f"{place} is a link; links are not followed, since they may lead to other files: "
            "copy what it shows into the file (h5repack, h5copy)"
        )
    data = file[name]
    if not isinstance(data, h5py.Dataset):
        kind = type(data).__name__.lower()
        raise DataError(f"{place} is a {kind}, wants a data set with a row for each video")
    if data.is_virtual or data.external:
        raise DataError(
            f"{place} takes its content from other files, which are not opened: copy it into one "
            "file (h5repack)"
        )
    _need_filters(data, place)
    return data


def _need_filters(data: h5py.Dataset, place: str) -> None:
    plist = data.id.get_create_plist()
    used = [plist.get_filter(number) for number in range(plist.get_nfilters())]
    if not all(h5py.h5z.filter_avail(code) for code, *_ in used):
        with suppress(ImportError):
            # Its import makes known what it can unpack: blosc, zstd, lz4 and others.
            importlib.import_module("hdf5plugin")
    for code, _, _, name in used:
        if not h5py.h5z.filter_avail(code):
            title = f" ({name.decode(errors='replace')})" if name else ""
            raise DataError(
                f"{place} is packed with HDF5 filter {code}{title}, which is not installed: "
                "pip install hdf5plugin, or pack it anew with gzip (h5repack -f GZIP=1)"
            )


def _read_ids(file: h5py.File, place: str, rows: int) -> list[str]:
    """Return the number of each row's video as text.

    Whole numbers of any type are read, also as text, and as a column (videos, 1).
    """
    data = _own(file, IDS, place)
    shape = data.shape or ()
    if shape not in ((rows,), (rows, 1)):
        raise DataError(
            f"{place} has shape {shape}, there are {rows} rows: wants one different number for "
            "each row"
        )
    if data.dtype.itemsize > MAX_ID_BYTES or data.dtype.kind not in "fiuSO":
        raise DataError(f"{place} has type {data.dtype}, wants whole numbers")
    ids: list[str] = []
    row_of: dict[str, int] = {}
    for row, value in enumerate(data[()].reshape(rows).tolist()):
        number = _whole_number(value)
        if number is None:
            text = value.decode(errors="replace") if isinstance(value, bytes) else value
            raise DataError(
                f"{place} has {str(text)[:60]!r} in row {row}, which is no whole number; read are "
                "the numbers of the videos as the annotations have them, in any type or as text"
            )
        if number in row_of:
            raise DataError(
                f"{place} are not one different number for each row: {number} is in the rows "
                f"{row_of[number]} and {row}"
            )
        row_of[number] = row
        ids.append(number)
    return ids


def _whole_number(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("ascii", errors="replace")
    if isinstance(value, str):
        digits = value.strip(" \t\r\n\0")
        short = digits.isascii() and digits.isdigit() and len(digits) <= MAX_ID_DIGITS
        return str(int(digits)) if short else None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    return str(value) if isinstance(value, int) else None
