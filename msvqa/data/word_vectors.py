"""Word vectors from text files, read as a stream: only the words that are needed are kept.

A line is a word and its numbers, with spaces or tabs between; some words have spaces in them. GloVe
writes nothing else; word2vec and fastText begin with a line `words width`.
"""

import gzip
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from msvqa.content import START_BYTES, stand_in
from msvqa.data.video_files import is_companion
from msvqa.errors import DataError, one_of

SUFFIXES = (".txt", ".vec")
"""Of the files inside a ZIP archive."""
MAX_WORD_BYTES = 10_000
MAX_NUMBER_BYTES = 40
LARGEST = float(np.finfo(np.float32).max)
"""Beyond it a number is infinite in the table of the words."""
LINES_LOOKED_AT = 100
"""How many lines tell the width of the vectors."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
FOREIGN = {
    b"\xff\xfe": "is text in UTF-16: save it as UTF-8",
    b"\xfe\xff": "is text in UTF-16: save it as UTF-8",
    b"BZh": "is compressed (bzip2): unpack it",
    b"\xfd7zXZ": "is compressed (xz): unpack it",
    b"7z\xbc\xaf": "is compressed (7z): unpack it",
}


def read_word_vectors(path: str | Path, words: Sequence[str], size: int) -> np.ndarray:
    """Return float32 (words, size); a word that the file does not have gets zeros.

    Args:
        path: text, plain, gzipped or in a zip archive.
        words: the vocabulary; upper and lower case are different words.
        size: width of the vectors.

    Raises:
        DataError: the file cannot be read, has another width, or has none of the words.
    """
    path = Path(path)
    rows = {word.encode(): row for row, word in enumerate(words)}
    vectors = np.zeros((len(words), size), dtype=np.float32)
    found: set[bytes] = set()
    check_word_vectors(path, size)
    with _opened(path, size) as stream:
        for number, line in _lines(stream, path, size):
            # Almost all lines end here. A word may contain spaces, so this only rules lines out.
            if line.split(None, 1)[0] not in rows:
                continue
            word, values = _parse(line, size, f"{path}: line {number}")
            if word in rows and word not in found:
                vectors[rows[word]] = values
                found.add(word)
            if len(found) == len(rows):
                break
    if words and not found:
        raise DataError(f"{path} has vectors of none of the {len(words)} words of the vocabulary")
    return vectors


def check_word_vectors(path: str | Path, size: int) -> None:
    """Look at the beginning of a file.

    Raises:
        DataError: the file cannot be read, or has another width.
    """
    path = Path(path)
    with _opened(path, size) as stream:
        first = [line for _, line in islice(_lines(stream, path, size), LINES_LOOKED_AT)]
    if not first:
        raise DataError(f"{path} holds no word vectors")
    widths = Counter(_width(line) for line in first)
    if size not in widths:
        found = widths.most_common(1)[0][0]
        raise DataError(
            f"{path}: the lines have {found} numbers, data.word_size is {size}; "
            "give the file or the width that fits"
            if found
            else f"{path} holds no word vectors: line 1 is {first[0][:60]!r}"
        )


@contextmanager
def _opened(path: Path, size: int) -> Iterator[IO[bytes]]:
    if not path.is_file():
        raise DataError(f"no file {path} of word vectors")
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
        if said := stand_in(start) or _foreign(start):
            raise DataError(f"{path} {said}")
        if start.startswith(b"PK"):
            with (
                zipfile.ZipFile(path) as archive,
                archive.open(_member(archive, path, size)) as file,
            ):
                yield file
        elif start.startswith(b"\x1f\x8b"):
            with gzip.open(path, "rb") as packed:
                yield io.BufferedReader(packed, 1 << 20)
        else:
            with path.open("rb", buffering=1 << 20) as file:
                yield file
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path} is damaged or cut short: {error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _foreign(start: bytes) -> str | None:
    """Return what a file is that is no text and no archive that is read."""
    for beginning, said in FOREIGN.items():
        if start.startswith(beginning):
            return said
    if b"\0" in start and not start.startswith((b"PK", b"\x1f\x8b")):
        return (
            "is binary, not text; word2vec's binary files have to be converted, for example with "
            "gensim: KeyedVectors.load_word2vec_format(IN, binary=True)"
            ".save_word2vec_format(OUT, binary=False)"
        )
    return None


def _member(archive: zipfile.ZipFile, path: Path, size: int) -> str:
    """Return the text file of an archive; of several widths the one asked for."""
    texts = [
        name
        for name in archive.namelist()
        if name.lower().endswith(SUFFIXES) and not is_companion(Path(name).name)
    ]
    fitting = texts if len(texts) == 1 else [name for name in texts if f".{size}d." in name]
    if len(fitting) != 1:
        raise DataError(
            f"{path}: no single file of width {size}; it holds {one_of(texts) or 'no text'}"
        )
    return fitting[0]


def _lines(stream: IO[bytes], path: Path, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield lines with their numbers.

    Raises:
        DataError: a line is too long, or the file is cut short, as far as that shows.
    """
    longest = MAX_WORD_BYTES + MAX_NUMBER_BYTES * size
    number, last, ended = 0, b"", True
    promised: int | None = None
    while line := stream.readline(longest):
        number += 1
        if len(line) == longest:
            raise DataError(f"{path}: line {number} is longer than {longest} bytes")
        ended = line.endswith(b"\n")
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
            promised = _promised(line, path, size)
            if promised is not None:
                continue
        if stripped := line.strip():
            last = stripped
            yield number, stripped
    if not ended and len(last.split()) <= size:
        raise DataError(f"{path} is cut short: it ends within line {number}, fetch it again")
    if promised is not None and number - 1 < promised:
        raise DataError(
            f"{path} is cut short: line 1 says {promised} vectors, {number - 1} are there; "
            "fetch it again"
        )


def _promised(line: bytes, path: Path, size: int) -> int | None:
    """Return how many vectors a line `words width` says, which word2vec and fastText write first.

    Raises:
        DataError: it says another width.
    """
    parts = line.split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        return None
    if int(parts[1]) != size:
        raise DataError(
            f"{path} says that its vectors have {int(parts[1])} numbers, data.word_size is {size}; "
            "give the file or the width that fits"
        )
    return int(parts[0])


def _width(line: bytes) -> int:
    """Return how many numbers a line ends with, after at least one word."""
    count = 0
    for part in reversed(line.split()[1:]):
        try:
            float(part)
        except ValueError:
            break
        count += 1
    return count


def _parse(line: bytes, size: int, place: str) -> tuple[bytes, list[float]]:
    # From the right: some words contain spaces.
    word, *numbers = line.rsplit(None, size)
    if len(numbers) != size:
        raise DataError(f"{place} has {len(numbers)} numbers, {size} are needed")
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        raise DataError(f"{place}: {line[:60]!r}... is not a word and {size} numbers") from None
    if not all(abs(value) <= LARGEST for value in values):
        raise DataError(f"{place}: a number is not finite")
    return word, values
