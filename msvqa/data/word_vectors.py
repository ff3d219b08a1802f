"""Word vectors from GloVe text files, read as a stream: only the words that are needed are kept."""

import gzip
import io
import logging
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from msvqa.errors import DataError, one_of

logger = logging.getLogger(__name__)

SUFFIXES = (".txt", ".gz", ".zip")
MAX_WORD_BYTES = 10_000
MAX_NUMBER_BYTES = 40
LARGEST = float(np.finfo(np.float32).max)
"""Beyond it a number is infinite in the table of the words."""


def read_word_vectors(path: str | Path, words: Sequence[str], size: int) -> np.ndarray:
    """Return float32 (words, size); a word that the file does not have gets zeros.

    Args:
        path: GloVe text, plain, gzipped or in a zip archive.
        words: the vocabulary; upper and lower case are different words.
        size: width of the vectors.

    Raises:
        DataError: the file cannot be read, has another width, or has none of the words.
    """
    path = Path(path)
    rows = {word.encode(): row for row, word in enumerate(words)}
    vectors = np.zeros((len(words), size), dtype=np.float32)
    found: set[bytes] = set()
    with _opened(path, size) as stream:
        for number, line in _lines(stream, path, size):
            # Almost all lines end here. A word may contain spaces, so this only rules lines out.
            if line.partition(b" ")[0] not in rows:
                continue
            word, values = _parse(line, size, f"{path}: line {number}")
            if word in rows and word not in found:
                vectors[rows[word]] = values
                found.add(word)
            if len(found) == len(rows):
                break
    if words and not found:
        raise DataError(f"{path} has none of the {len(words)} words of the vocabulary")
    logger.info("%s: vectors of %d of %d words", path, len(found), len(words))
    return vectors


@contextmanager
def _opened(path: Path, size: int) -> Iterator[IO[bytes]]:
    if not path.is_file():
        raise DataError(f"no file {path} of word vectors")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: word vectors are read from {one_of(SUFFIXES)}")
    try:
        if suffix == ".zip":
            with (
                zipfile.ZipFile(path) as archive,
                archive.open(_member(archive, path, size)) as file,
            ):
                yield file
        elif suffix == ".gz":
            with gzip.open(path, "rb") as packed:
                yield io.BufferedReader(packed, 1 << 20)
        else:
            with path.open("rb", buffering=1 << 20) as file:
                yield file
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path} is damaged: {error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _member(archive: zipfile.ZipFile, path: Path, size: int) -> str:
    """Return the text file of an archive; of several widths the one asked for."""
    texts = [name for name in archive.namelist() if name.lower().endswith(".txt")]
    fitting = texts if len(texts) == 1 else [name for name in texts if f".{size}d." in name]
    if len(fitting) != 1:
        raise DataError(
            f"{path}: no single file of width {size}; it holds {one_of(texts) or 'no .txt'}"
        )
    return fitting[0]


def _lines(stream: IO[bytes], path: Path, size: int) -> Iterator[tuple[int, bytes]]:
    longest = MAX_WORD_BYTES + MAX_NUMBER_BYTES * size
    number = 0
    while line := stream.readline(longest):
        number += 1
        if len(line) == longest:
            raise DataError(f"{path}: line {number} is longer than {longest} bytes")
        line = line.rstrip()
        if number == 1:
            if _is_header(line, size):
                continue
            _check_width(line, size, path)
        if line:
            yield number, line


def _is_header(line: bytes, size: int) -> bool:
    """Whether the first line is `words width`, as word2vec writes it."""
    parts = line.split()
    return len(parts) == 2 and parts[0].isdigit() and parts[1] == str(size).encode()


def _check_width(line: bytes, size: int, path: Path) -> None:
    # Only here can a wider file be told from a word with spaces: no first word of GloVe has any.
    width = len(line.split()) - 1
    if width != size:
        raise DataError(
            f"{path}: line 1 has {width} numbers, data.word_size is {size}; "
            "give the file or the width that fits"
        )


def _parse(line: bytes, size: int, place: str) -> tuple[bytes, list[float]]:
    # From the right: some words contain spaces.
    word, *numbers = line.rsplit(b" ", size)
    if len(numbers) != size:
        raise DataError(f"{place} has {len(numbers)} numbers, {size} are needed")
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        raise DataError(f"{place}: {line[:60]!r}... is not a word and {size} numbers") from None
    if not all(abs(value) <= LARGEST for value in values):
        raise DataError(f"{place}: a number is not finite")
    return word, values
