"""Vectors: arrays that another program made of each medium, from .npy files or records of a file.

A medium of kind `record` is the bytes from `start` to `end` of its file: numbers of `dtype`, row
after row, lowest byte first; in a file of TensorFlow's records (`.tfrecords`) one whole record with
its checksums, of which a feature holds the rows. Any other medium names a .npy file, with one
vector or several rows.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from pydantic import Field

from msvqa.data.finite import as_stored
from msvqa.data.medium import Medium
from msvqa.data.processors.processor import Extractor, Processor, Way
from msvqa.data.records import (
    SUFFIXES,
    LastFile,
    RecordError,
    parse_example,
    read_record,
    stored_checksum,
)
from msvqa.data.sampling import middles, strided
from msvqa.data.store import Arrays, ArraySpec, StoreSpec
from msvqa.data.video import video_file
from msvqa.errors import VideoError
from msvqa.sections import NamedConfig
from msvqa.storage import Location

# Legend: n rows of a medium, T of a batch, D numbers each.

Sampling = Literal["middles", "strided"]
ROWS: dict[Sampling, Callable[[int, int], np.ndarray]] = {"middles": middles, "strided": strided}
"""Which T rows of n are taken where there are more."""


class Vectors(Processor):
    """`vectors` (T, D) with `num_frames`, or (D,) for media of a single vector."""

    class Config(NamedConfig):
        """What the arrays are like, and where they are read."""

        name: str = "vectors"
        width: int = Field(ge=1)
        """D"""
        frames: int | None = Field(default=None, ge=1, le=4096)
        """T; null: every medium is a single vector."""
        sampling: Sampling = "middles"
        """`middles`: of more than T rows the middle ones of T equal parts, fewer are filled up with
        zeros; `strided`: rows at a whole number of rows from each other, and the last of fewer is
        repeated, as in the similarity systems."""
        feature: str = "frame_feature"
        """Of TensorFlow's records: which feature holds the rows, one entry of bytes each."""
        feature_dtype: Literal["float16", "float32"] = "float16"
        """Of the numbers of `feature`, lowest byte first."""
        dtype: Literal["float16", "float32"] = "float32"
        """Of records of plain numbers, of the store and of batches."""
        batch_dtype: Literal["float16", "float32"] | None = None
        """Of batches alone; null: as `dtype`."""
        cache: Literal["none", "store"] = "none"
        """`none` reads the files while training runs, `store` copies and checks them before."""
        store: Location | None = None
        """Folder of the store; by default inside the prepared folder."""

    config: Config

    @property
    def way(self) -> Way:  # type: ignore[override]
        """Read by the workers themselves, unless there is a store."""
        return "store" if self.config.cache == "store" else "direct"

    def sizes(self) -> dict[str, int | None]:
        """Return the width, and the number of rows."""
        return {"width": self.config.width, "frames": self.config.frames}

    def spec(self) -> StoreSpec:
        """Return what a store of vectors holds."""
        config = self.config
        if config.frames is None:
            arrays = {"vectors": ArraySpec(shape=(config.width,), dtype=config.dtype)}
        else:
            arrays = {
                "vectors": ArraySpec(shape=(config.frames, config.width), dtype=config.dtype),
                "num_frames": ArraySpec(shape=(), dtype="int64"),
            }
        # Stores of middle rows say nothing of it: so they were before there was a choice.
        settings = {} if config.sampling == "middles" else {"sampling": config.sampling}
        return StoreSpec(kind="vectors", arrays=arrays, settings=settings)

    def folder_name(self) -> str:
        """Return a name that says what the arrays are like."""
        config = self.config
        rows = "" if config.frames is None else f"{config.frames}x"
        drawn = "" if config.sampling == "middles" else f"-{config.sampling}"
        return f"vectors-{rows}{config.width}-{config.dtype}{drawn}"

    def draw(self, arrays: Arrays, generator: np.random.Generator | None) -> Arrays:
        """Return the arrays in the type of batches; nothing is random."""
        dtype = self.config.batch_dtype
        if dtype is None or dtype == self.config.dtype:
            return arrays
        return {**arrays, "vectors": arrays["vectors"].astype(dtype)}

    def extractor(self) -> "VectorReader":
        """Return what reads the files."""
        return VectorReader(self.config)


class VectorReader(Extractor):
    """Reads the array of one medium after another, and checks it."""

    def __init__(self, config: Vectors.Config) -> None:
        self._config = config
        self._records = LastFile()

    def close(self) -> None:
        """Close the file of records that was read last."""
        self._records.close()

    def arrays(self, medium: Medium) -> Arrays:
        """Return the rows of a medium."""
        return self._made(medium, {})[0]

    def _made(self, medium: Medium, facts: dict[str, Any]) -> tuple[Arrays, str]:
        config = self._config
        with video_file(medium.path) as path:
            found = self._read(path, medium, facts)
            wanted = 1 if config.frames is None else 2
            if found.ndim == 1 and config.frames is not None:
                found = found[None]
            if found.ndim != wanted or found.shape[-1] != config.width or not len(found):
                shape = "(D,)" if config.frames is None else "(n, D)"
                raise VideoError(
                    "bad_array",
                    f"{path}: shape {found.shape}, {shape} with D = {config.width} is needed",
                )
            # What is only mapped may be gone behind this block.
            found = np.array(found) if isinstance(found, np.memmap) else found
            values = as_stored(found, config.dtype, str(path))
        if config.frames is None:
            return {"vectors": values}, "ok"
        return DRAWN[config.sampling](values, config.frames), "ok"

    def _read(self, path: Path, medium: Medium, facts: dict[str, Any]) -> np.ndarray:
        try:
            if medium.kind != "record":
                facts["bytes"] = path.stat().st_size
                array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
                return array
            if path.name.endswith(SUFFIXES):
                start, end = int(medium.start or 0), int(medium.end or 0)
                file = self._records.open(path)
                try:
                    return self._feature(file, start, end)
                finally:
                    # Behind what was read, so that files are read from front to back.
                    facts["checksum"] = stored_checksum(file, end)
            return self._record(path, int(medium.start or 0), medium.end)
        except (FileNotFoundError, IsADirectoryError):
            raise VideoError("unreadable", f"{path}: no such file") from None
        except RecordError as error:
            place = f"{path}: record at byte {int(medium.start or 0)}"
            raise VideoError("bad_record", f"{place}: {error}") from None
        except (OSError, ValueError, EOFError) as error:
            raise VideoError("bad_array", f"{path}: no array that can be read: {error}") from None

    def _feature(self, file: BinaryIO, start: int, end: int) -> np.ndarray:
        """Return (n, D) of the entries of a feature of a record."""
        name, dtype = self._config.feature, np.dtype(self._config.feature_dtype).newbyteorder("<")
        needed = dtype.itemsize * self._config.width
        entries: Any = parse_example(read_record(file, start, end)).get(name, ())
        # All entries of a feature are of one type.
        rows = list(entries) if entries and isinstance(entries[0], bytes) else []
        sizes = set(map(len, rows))
        if sizes != {needed}:
            found = f"entries of {sorted(sizes)} bytes" if sizes else "no entries of bytes"
            raise RecordError(
                f"{name!r} holds {found}; {needed} each are {self._config.width} {dtype}"
            )
        return np.frombuffer(b"".join(rows), dtype).reshape(-1, self._config.width)

    def _record(self, path: Path, start: int, end: float | None) -> np.ndarray:
        """Return (D,) or (n, D) of a range of bytes."""
        size, dtype = path.stat().st_size, np.dtype(self._config.dtype).newbyteorder("<")
        stop, row = size if end is None else int(end), dtype.itemsize * self._config.width
        if not 0 <= start < stop <= size or (stop - start) % row:
            raise VideoError(
                "bad_record",
                f"{path}: bytes {start} to {stop} of {size} are no rows of {row} bytes each",
            )
        with path.open("rb") as file:
            content = os.pread(file.fileno(), stop - start, start)
        rows = np.frombuffer(content, dtype).reshape(-1, self._config.width)
        return rows[0] if self._config.frames is None and len(rows) == 1 else rows


def _filled(rows: np.ndarray, count: int) -> Arrays:
    """Return T rows of n, with how many of them are no filling."""
    if len(rows) > count:
        rows = rows[middles(len(rows), count)]
    vectors = np.zeros((count, rows.shape[1]), rows.dtype)
    vectors[: len(rows)] = rows
    return {"vectors": vectors, "num_frames": np.array(len(rows), np.int64)}


def _repeated(rows: np.ndarray, count: int) -> Arrays:
    """Return T rows of n at equal distances, with how many of them are no repetition."""
    length = np.array(min(len(rows), count), np.int64)
    chosen = strided(len(rows), count)
    if len(rows) >= count:
        # Without a copy: they are at equal distances.
        step = int(chosen[1] - chosen[0]) if count > 1 else 1
        return {"vectors": rows[chosen[0] : chosen[-1] + 1 : step], "num_frames": length}
    return {"vectors": rows[chosen], "num_frames": length}


DRAWN: dict[Sampling, Callable[[np.ndarray, int], Arrays]] = {
    "middles": _filled,
    "strided": _repeated,
}
"""Makes `vectors` (T, D) and `num_frames` of the rows (n, D) of a medium, of any number."""
