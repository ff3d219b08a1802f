"""Text that a person or another program wrote, in any Unicode encoding and with any line ends.

UTF-8 is read with and without a byte order mark, and so are UTF-16 and UTF-32, which spreadsheet
programs write. A code page (Windows-1252, GBK …) is refused with a guess of which one it is, and
never read by that guess: a wrong one changes letters in silence.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from msvqa.content import START_BYTES, stand_in
from msvqa.errors import DataError

MARK = "\ufeff"
"""The byte order mark, as a character."""
LINES_OF_SAMPLE = 1_000
"""So many lines before and after a wrong byte are looked at to guess the code page."""
SHOWN = 80
ADVICE = "save the file as UTF-8 (spreadsheet programs call it 'CSV UTF-8')"
_NO_TEXT = {
    b"PK\x03\x04": "a zip archive, as workbooks of Excel (.xlsx) are",
    b"\xd0\xcf\x11\xe0": "a workbook of Excel (.xls)",
    b"\x1f\x8b": "compressed with gzip",
    b"PAR1": "a Parquet file",
}
"""What often stands where text is expected, by how it begins."""


def read_lines(path: Path, name: object = None) -> Iterator[str]:
    r"""Yield the lines of a text file with their ends (`\n`, `\r\n` or `\r`), without a mark.

    Args:
        path: the file.
        name: what messages call it; by default the path.

    Raises:
        DataError: it is no text, or in no encoding that is read; says where and what to do.
    """
    name = name or path
    with path.open("rb") as file:
        start = file.read(START_BYTES)
    if problem := stand_in(start):
        raise DataError(f"{name} {problem}")
    if found := [what for beginning, what in _NO_TEXT.items() if start.startswith(beginning)]:
        raise DataError(f"{name}: text is needed, and this is {found[0]}")
    # By the mark, or by the zero bytes that ASCII letters have in UTF-16 and UTF-32.
    encoding = json.detect_encoding(start)
    with path.open(encoding=encoding, newline="") as text:
        try:
            yield from _checked(text, name)
        except UnicodeDecodeError:
            raise DataError(f"{name}: {_first_wrong_byte(path.read_bytes(), encoding)}") from None


def _checked(lines: Iterable[str], name: object) -> Iterator[str]:
    """Yield lines without marks: also later ones begin with one, where files were joined."""
    for number, line in enumerate(lines, start=1):
        if "\0" in line:
            raise DataError(f"{name}: line {number} holds a NUL character: {ADVICE}")
        yield line.removeprefix(MARK)


def read_text(path: Path, name: object = None) -> str:
    """Return the whole text of a file, see `read_lines`.

    Raises:
        DataError: it is no text, or in no encoding that is read; says where and what to do.
    """
    return "".join(read_lines(path, name))


def parse_json(text: str) -> Any:
    """Return the content of JSON; of a key given twice nobody knows which value is meant.

    Raises:
        ValueError: it is not valid JSON, or a key is there twice.
    """
    try:
        return _STRICT.decode(text)
    except RecursionError:
        raise ValueError("lists and objects are nested too deeply") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = [key for key, n in Counter(key for key, _ in pairs).items() if n > 1]
        shown = json.dumps(content)[:SHOWN]
        raise ValueError(f"the key {twice[0]!r} is there twice in the object {shown}")
    return content


_STRICT = json.JSONDecoder(object_pairs_hook=_without_duplicates)
"""Made once: for a file of many lines that is a third of the time."""


def _first_wrong_byte(content: bytes, encoding: str) -> str:
    """Say where bytes are not of an encoding, and of which one they may be."""
    try:
        content.decode(encoding)
        return f"was changed while it was read: {ADVICE}"
    except UnicodeDecodeError as error:
        # The decoder takes a mark off before it counts.
        position = error.start + len(content) - len(error.object)
    before = content[:position].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    line = before.count(b"\n") + 1
    place = f"line {line}: byte 0x{content[position]:02x} at position {position}"
    if not encoding.startswith("utf-8"):
        return f"{place} is not {encoding.upper()}, as which the file begins: {ADVICE}"
    lines = content.splitlines()
    sample = b"\n".join(lines[max(0, line - LINES_OF_SAMPLE) : line + LINES_OF_SAMPLE])
    guess = _likely_code_page(sample)
    if guess is None:
        return f"{place} is not UTF-8, and the file looks like no text: {ADVICE}"
    shown = lines[line - 1].decode(guess, "replace")[:SHOWN]
    return f"{place} is not UTF-8; the file may be in {guess} ({shown!r}): {ADVICE}"


def _likely_code_page(sample: bytes) -> str | None:
    # Imported here: only a file that cannot be read needs it.
    from charset_normalizer import from_bytes

    matches = from_bytes(sample)
    best = matches.best()
    if best is None:
        return None
    likely = {
        name
        for match in matches
        if match.chaos == best.chaos
        for name in (match.encoding, *match.could_be_from_charset)
    }
    # Of neighbours that differ in a few letters only, the one that most computers have.
    return "cp1252" if "cp1252" in likely else best.encoding
